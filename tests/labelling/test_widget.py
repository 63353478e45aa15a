"""The labeller in a notebook's cell, by its messages: what a browser sends, and what it gets."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="needs the extra widget")
from bbald_jax.labelling import widget
from bbald_jax.labelling.page.actions import static_text
from bbald_jax.labelling.page.handing import IN_HAND
from bbald_jax.labelling.widget import Labeller

IMAGES = np.arange(12 * 4 * 5, dtype=np.uint8).reshape(12, 4, 5)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A session's file; nothing learns."""
    monkeypatch.setattr(widget.Learning, "start", lambda _: None)
    yield tmp_path / "labels.db"
    for labeller in [*widget._OPEN.values()]:
        labeller.close()


class Browser:
    """Sends what the script in the cell would, and hears what the kernel sends back."""

    def __init__(self, labeller: Labeller) -> None:
        self.labeller, self.heard = labeller, []
        labeller.send = lambda content, buffers=None: self.heard.append((content, buffers))

    def __call__(self, what: str, status: int = 200, **body: Any) -> Any:
        number = f"view {len(self.heard)}"
        message = {"id": number, "what": what, "body": {"annotator": "anna", **body}}
        self.labeller._handle_custom_msg(message, [])
        reply, self.buffers = self.heard[-1]
        assert (reply["id"], reply["status"]) == (number, status)
        return reply["content"]


def test_a_day_of_labelling_by_messages(path: Path):
    labeller = Labeller(IMAGES, ["cat", "dog"], path, annotator="anna")
    browser = Browser(labeller)
    assert browser("setup") == {"classes": ["cat", "dog"], "kind": "image", "name": "anna"}
    items = browser("begin")["items"]
    assert len(items) == IN_HAND
    one, two, three = (item["index"] for item in items)
    assert browser("picture", index=one) == {"media_type": "image/png"}
    assert browser.buffers[0] == labeller.items.picture(one)[0]
    after = browser("answer", index=one, label=1)
    assert [item["index"] for item in after["items"]][:2] == [two, three]
    assert after["progress"]["labelled"] == 1
    assert browser("undo")["items"][0]["index"] == one
    browser("answer", index=one, label=0)
    browser("skip", index=two)
    browser("add-class", name="bird")
    browser("answer", index=three, label=2)
    assert [each["labelled"] for each in browser("overview")["classes"]] == [1, 0, 1]
    told = dict(zip(*(part.tolist() for part in labeller.session.labelled), strict=True))
    assert told == {one: 0, three: 2}
    assert repr(labeller) == "<Labeller: 2 of 12 labelled, in labels.db>"
    assert labeller.accuracy is None
    assert labeller.measured is None


def test_the_guides_example(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    guide = Path(__file__).parents[2] / "docs" / "label.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    names: dict[str, Any] = {"images": IMAGES}
    exec(example, names)
    assert len(Browser(names["labeller"])("begin")["items"]) == IN_HAND
    assert path.exists()


def test_a_cell_that_runs_again_goes_on_and_takes_the_others_place(path: Path):
    first = Labeller(IMAGES, ["cat", "dog"], path, annotator="anna")
    browser = Browser(first)
    browser("answer", index=browser("begin")["items"][0]["index"], label=1)
    second = Labeller(IMAGES, ["cat", "bird"], path, annotator="anna")
    assert first.learning._is_closed
    assert first.comm is None
    assert not second.learning._is_closed
    assert second.session.classes == ("cat", "dog", "bird")
    assert Browser(second)("begin")["progress"]["labelled"] == 1


@pytest.mark.parametrize(
    ("what", "status", "body"),
    [
        ("answer", 400, {"index": 12, "label": 0}),
        ("answer", 400, {"index": 0, "label": 2}),
        ("begin", 400, {"annotator": ""}),
        ("undo", 409, {}),
        ("picture", 404, {"index": 12}),
        ("picture", 404, {"index": "../secret"}),
        ("close", 404, {}),
        ("__class__", 404, {}),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_happens(
    path: Path, what: str, status: int, body: dict[str, Any]
):
    labeller = Labeller(IMAGES, ["cat", "dog"], path)
    assert Browser(labeller)(what, status, **body)["error"]
    assert [event.kind for event in labeller.session.history] == ["create", "source"]


@pytest.mark.parametrize("message", [None, 3, [], {}, {"id": 1, "what": "begin", "body": []}])
def test_what_is_no_message_is_answered(path: Path, message: Any):
    reply, pictures = Labeller(IMAGES, ["cat"], path).handle(message)
    assert reply["status"] in (400, 404)
    assert not pictures


def test_an_error_of_ours_does_not_leave_the_browser_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    labeller = Labeller(IMAGES, ["cat"], path)

    def broken(_: str) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(labeller.desk, "in_hand", broken)
    browser = Browser(labeller)
    assert browser("begin", 503) == {"error": "RuntimeError: broken"}


def test_texts_and_files_do_too(path: Path, tmp_path: Path):
    nasty = "<img src=x onerror=alert(1)>"
    texts = np.asarray([nasty, "two"])
    labeller = Labeller(texts, ["cat"], path)
    assert {item["text"] for item in Browser(labeller)("begin")["items"]} == {nasty, "two"}
    np.save(tmp_path / "images.npy", IMAGES)
    labeller = Labeller(tmp_path / "images.npy", ["cat"])
    assert labeller.session.path == tmp_path / "images.npy.labels.db"


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (IMAGES, {"session": None}, "session: name a file"),
        (IMAGES, {"classes": ()}, "classes: name at least one"),
        (IMAGES[0], {}, r"data: an array uint8 \(4, 5\)"),
        ([], {}, "data: an array"),
        (IMAGES, {"features": np.zeros((3, 2))}, r"expected numbers \[12, D\]"),
        (["one", "two"], {"features": "image"}, "not for a text"),
    ],
)
def test_what_cannot_be_is_refused(path: Path, data: Any, settings: dict[str, Any], message: str):
    settings = {"classes": ["cat"], "session": path, **settings}
    with pytest.raises(ValueError, match=message):
        Labeller(data, **settings)


def test_a_session_about_other_images_is_refused(path: Path):
    Labeller(IMAGES, ["cat"], path)
    with pytest.raises(ValueError, match="are not the 12 that"):
        Labeller(IMAGES + 1, ["cat"], path)


def test_the_cell_has_the_pages_own_script_and_makes_html_of_its_own_markup_only():
    module = Labeller._esm
    assert static_text("labeller.js") in module
    assert module.count("innerHTML") == module.count("markup.innerHTML = MARKUP;") == 1
    script = static_text("widget.js")
    for risky in ("outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "://"):
        assert risky not in script
