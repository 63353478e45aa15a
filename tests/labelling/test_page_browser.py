"""The page in a real browser: keys, mouse, two people, a dark and a narrow screen.

Playwright drives the Chromium that is installed (Debian: `apt-get install chromium`); without one,
or without playwright, these tests are skipped. The server is a process of its own, as for people.
"""

import contextlib
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("starlette", reason="needs the extra label")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium: apt-get install chromium, or the like"
)

KEYS = "123456789abcdefghijklmnopqrstuvwxyz"
CLASSES = ["dark", "light"]
NUM_ITEMS = 80
# What is shown has changed, and can be seen.
IS_NEW = """before => {
  const item = document.getElementById("item"), image = item.querySelector("img");
  return item.dataset.shown !== before && image && image.complete && image.naturalWidth;
}"""


class Server:
    """`bbald label` in a process, on one session, with a port that it keeps."""

    def __init__(self, folder: Path, texts: list[str] | None = None) -> None:
        rng = np.random.default_rng(0)
        self.folder, self.session = folder, folder / "labels.db"
        self.truth = rng.integers(0, 2, NUM_ITEMS)
        images = rng.integers(0, 100, (NUM_ITEMS, 12, 12)) + 155 * self.truth[:, None, None]
        self.data = folder / "images.npy"
        np.save(self.data, images.astype(np.uint8))
        rows = rng.normal(size=(NUM_ITEMS, 8)) + 3 * self.truth[:, None]
        np.save(folder / "rows.npy", rows.astype(np.float32))
        if texts is not None:
            self.data = folder / "data.csv"
            with self.data.open("w", newline="") as file:
                lines = [["number", "text"], *([n, text] for n, text in enumerate(texts))]
                csv.writer(file).writerows(lines)
        self.process: subprocess.Popen[str] | None = None
        self.port, self.address = "0", ""

    def start(self) -> str:
        """The address that it prints; one that runs stays."""
        if self.process is not None and self.process.poll() is None:
            return self.address
        command = [sys.executable, "-m", "bbald_jax", "label", str(self.data)]
        command += ["--session", str(self.session)]
        if self.data.suffix == ".npy":
            command += ["--features", str(self.folder / "rows.npy")]
        command += ["--no-open", "--classes", ",".join(CLASSES)]
        if self.port != "0":
            command += ["--port", self.port]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://\S+:(\d+)/\?token=\S+", line):
                self.port = found.group(1)
                self.address = found.group()
                return self.address
        raise AssertionError("no address")

    def kill(self) -> None:
        """As the power does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("page"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Any, address: str, expected: Sequence[str] = (), **settings: Any
) -> Iterator[Any]:
    """A window of its own, in which nothing goes wrong and nothing is loaded from elsewhere."""
    context = browser.new_context(**settings)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda request: wrong.append(request.url) if "//127.0.0.1:" not in request.url else None,
    )
    page.goto(address)
    page.wait_for_selector("#item :is(img, .words)")
    yield page
    context.close()
    assert wrong == [*expected]


def shown(page: Any) -> int:
    return int(page.evaluate("document.getElementById('item').dataset.shown"))


def press(page: Any, key: str) -> None:
    """One answer, until the next item can be seen."""
    before = str(shown(page))
    page.keyboard.press(key)
    page.wait_for_function(IS_NEW, arg=before)


def saved(page: Any, text: str) -> None:
    """Until the line at the top says so: it comes from the server."""
    page.wait_for_function(
        "text => document.getElementById('count').textContent.includes(text)", arg=text
    )


def label_right(page: Any, server: Server, number: int) -> None:
    for _ in range(number):
        press(page, KEYS[server.truth[shown(page)]])


def test_a_day_at_the_keyboard_with_the_power_cut(server: Server, browser: Any):
    address = server.start()
    with opened(browser, address, viewport={"width": 1200, "height": 850}) as page:
        label_right(page, server, 15)
        first = shown(page)
        press(page, "-")
        second = shown(page)
        press(page, "?")
        saved(page, "15 of 80 labelled (1 skipped, 1 unsure)")
        third = shown(page)
        press(page, KEYS[1 - server.truth[third]])  # a mistake
        saved(page, "16 of")
        page.keyboard.press("Backspace")
        saved(page, "15 of")
        assert shown(page) == third
        label_right(page, server, 5)
        saved(page, "20 of")
        # The width is a whole number of times the image's, and its pixels are not blurred.
        assert page.evaluate("document.querySelector('#item img').clientWidth % 12") == 0
        assert "pixelated" in page.evaluate(
            "getComputedStyle(document.querySelector('#item img')).imageRendering"
        )
        assert first != second

    server.kill()  # as soon as the page said that it was saved
    with opened(browser, server.start(), viewport={"width": 1200, "height": 850}) as page:
        saved(page, "20 of 80 labelled (1 skipped, 1 unsure)")
        page.wait_for_function(
            "() => document.getElementById('stage').textContent === 'The model has learnt from 20.'"
        )
        label_right(page, server, 10)
        saved(page, "30 of")
        page.fill("#new-class", "<b>other</b>")
        page.keyboard.press("Enter")
        page.wait_for_selector("#classes button:nth-child(3)")
        assert page.inner_text("#classes button:nth-child(3)").endswith("<b>other</b>")
        press(page, "3")
        saved(page, "31 of")
        page.click("#to-review")
        page.wait_for_selector("#confident .thumb")
        item = page.locator("#confident .thumb").first
        corrected = int(item.get_attribute("data-index"))
        item.click()
        page.click("#choice-classes button:nth-child(3)")
        page.wait_for_function(
            "() => document.querySelector('#counts tr:nth-child(3) .number')?.textContent === '2'"
        )
    with bb.Session.open(server.session) as session:
        points, labels = session.labelled
        told = dict(zip(points.tolist(), labels.tolist(), strict=True))
        assert len(told) == 32
        assert told.pop(corrected) == 2
        assert sum(label == 2 for label in told.values()) == 1
        assert all(label in (2, server.truth[point]) for point, label in told.items())
        assert session.skipped.tolist() == [first]
        assert [event.index for event in session.events("unsure")] == [second]
        assert session.classes == ("dark", "light", "<b>other</b>")
        asked = [event.extra.get("acquisition") for event in session.events("ask")]
        assert asked.count("weighted-epig-closed") > 5


def test_two_people_in_two_browsers_dark_and_narrow(server: Server, browser: Any, tmp_path: Path):
    address = server.start()
    narrow = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    with opened(browser, address) as one, opened(browser, address, **narrow) as two:
        two.fill("#who", "ben")
        before = shown(two)
        two.keyboard.press("Enter")
        two.wait_for_function(IS_NEW, arg=str(before))
        for _ in range(5):
            assert shown(one) != shown(two)
            label_right(one, server, 1)
            label_right(two, server, 1)
        background, words = two.evaluate(
            "(({ backgroundColor: a, color: b }) => [a, b])(getComputedStyle(document.body))"
        )
        assert sum(map(int, re.findall(r"\d+", background))) < 150
        assert sum(map(int, re.findall(r"\d+", words))) > 600
        is_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not two.evaluate(is_wide)
        two.click("#to-review")
        two.wait_for_selector("#confident .thumb")
        assert not two.evaluate(is_wide)
        two.screenshot(path=str(tmp_path / "narrow.png"), full_page=True)
        assert (tmp_path / "narrow.png").stat().st_size > 5_000
    with bb.Session.open(server.session) as session:
        mine = [answer for answer in session.answers if answer.annotator == "ben"]
        assert len(mine) == 5
        assert len({answer.point for answer in session.answers}) == len(session.answers)


def test_an_answer_waits_for_a_server_that_is_away(server: Server, browser: Any):
    failed = ["Failed to load resource: net::ERR_FAILED"]
    with opened(browser, server.start(), failed) as page:
        page.route("**/api/answer", lambda route: route.abort())
        press(page, KEYS[server.truth[shown(page)]])
        page.wait_for_selector("#alarm:not([hidden])")
        assert "1 answer is not saved yet" in page.inner_text("#alarm")
        count = page.inner_text("#count")
        page.unroute("**/api/answer")
        page.wait_for_function(
            "before => document.getElementById('count').textContent !== before", arg=count
        )
        assert page.is_hidden("#alarm")
        page.click("#measure")  # what comes of it is shown without another answer
        page.wait_for_function(
            "() => document.getElementById('accuracy').textContent.startsWith('Accuracy of the')"
        )


def accessible(page: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What Chromium tells a screen reader: by role and name, the properties."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return {
        (node["role"]["value"], node.get("name", {}).get("value", "").strip()): {
            each["name"]: each["value"].get("value") for each in node.get("properties", ())
        }
        for node in nodes
        if not node["ignored"]
    }


def test_what_a_screen_reader_is_told(server: Server, browser: Any):
    with opened(browser, server.start()) as page:
        there = accessible(page)
        item = shown(page)
        for role, name in (
            ("heading", "bbald label"),
            ("navigation", "Views"),
            ("textbox", "You are"),
            ("main", ""),
            ("progressbar", "Labelled items"),
            ("region", "Item to label"),
            ("image", f"image {item}"),
            ("group", "Classes"),
            ("group", "Other answers"),
            ("textbox", "New class"),
        ):
            assert (role, name) in there, (role, name)
        for name, key in (("dark", "1"), ("light", "2"), ("Undo", "Backspace"), ("Skip", "-")):
            assert there["button", name]["keyshortcuts"] == key
        assert all(name for role, name in there if role in ("button", "textbox", "image"))
        press(page, "1")
        # What was said, and what is next, is read out without the focus going anywhere.
        live = page.locator("#live")
        assert live.text_content() == f"dark. Next: image {shown(page)}"
        assert live.get_attribute("aria-live") == "polite"
        assert ("StaticText", live.text_content()) in accessible(page)
        page.click("#to-review")
        page.locator("#confident .thumb").first.click()
        there = accessible(page)
        assert there["dialog", "What is this?"]["modal"]
        assert ("button", "light") in there
        assert ("button", "Review") not in there  # what lies behind a dialog
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.className") == "thumb"


def test_texts_are_labelled_by_keyboard(tmp_path: Path, browser: Any):
    nasty = '  <img src=x onerror=alert(1)>\n\n  two, "three"'
    texts = [f"{('dark', 'light')[n % 2]} words, number {n}" for n in range(12)] + [nasty]
    server = Server(tmp_path, texts)
    try:
        with opened(browser, server.start()) as page:
            words = page.locator("#item .words")
            for number in range(len(texts) - 1):
                assert words.text_content() == texts[shown(page)]
                assert page.inner_text("#caption") == f"item {shown(page)}"
                before = shown(page)
                page.keyboard.press("2" if "light" in texts[before] else "1")
                page.wait_for_function(
                    "before => document.getElementById('item').dataset.shown !== before",
                    arg=str(before),
                )
                saved(page, f"{number + 1} of 13")
            page.keyboard.press("-")
            page.wait_for_selector("#item p")
            saved(page, "(1 skipped)")
    finally:
        server.kill()
    with bb.Session.open(server.session) as session:
        points, labels = session.labelled
        assert len(points) == 12
        told = zip(points.tolist(), labels.tolist(), strict=True)
        assert all(label == ("light" in texts[point]) for point, label in told)
