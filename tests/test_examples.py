"""The Python of the documentation runs as it stands, page by page; the README shows some of it."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbald_jax as bb

REPOSITORY = Path(__file__).parents[1]
PAGES = {path.stem: path for path in (REPOSITORY / "docs").glob("*.md")}


def examples(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """Run the examples of a page from top to bottom, and return the names that it leaves."""
    names: dict[str, Any] = {}
    for text in examples(PAGES[page]):
        exec(compile(text, str(PAGES[page]), "exec"), names)
    return names


@pytest.fixture
def few_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of 10,000 configurations is not for tests."""
    few = bb.catalogue(num_configurations=50)
    monkeypatch.setattr(bb, "catalogue", lambda **_: few)
    monkeypatch.setattr("bbald_jax.acquisition.functions.catalogue", lambda **_: few)


def test_every_page_with_examples_is_run():
    pages = {page for page, path in PAGES.items() if examples(path)}
    assert pages == {
        "doors",
        "start",
        "labelling",
        "stopping",
        "features",
        "head",
        "label",
        "loop",
        "runs",
        "scale",
    }, "run it below (doors: in its own file; label: with the widget)"


def test_the_readme_shows_examples_of_the_pages():
    shown = examples(REPOSITORY / "README.md")
    assert len(shown) == 3
    for text, page in zip(shown, ("start", "labelling", "loop"), strict=True):
        assert text in examples(PAGES[page]), f"README.md and docs/{page}.md differ"


@pytest.mark.usefixtures("few_configurations")
def test_a_pool_on_many_devices():
    spread, own = (text for text in examples(PAGES["scale"]) if "mesh" in text)
    names: dict[str, Any] = {}
    exec(spread, names)
    batch = names["batch"]
    exec(own, names)
    assert len(set(batch.indices.tolist())) == 10
    whole = bb.select_kbald(names["pool"].log_probs, key=jax.random.key(0), batch_size=10)
    np.testing.assert_array_equal(names["batch"].indices, whole.indices)


def test_two_minutes(capsys: pytest.CaptureFixture[str]):
    before, after = examples(PAGES["start"])
    names: dict[str, Any] = {}
    exec(before, names)
    batch = names["batch"]
    assert len(set(batch.indices.tolist())) == 10
    assert np.all(np.diff(batch.scores) > 0)
    assert str(batch.indices) in capsys.readouterr().out
    exec(after, names)
    np.testing.assert_array_equal(names["batch"].indices, batch.indices)


@pytest.mark.slow
def test_a_pool_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((300, 8, 3)).astype(np.float16)
    np.save("predictions.npy", np.asarray(jax.nn.log_softmax(jnp.asarray(logits))))
    np.save("features.npy", rng.standard_normal((100, 5)).astype(np.float32))
    names = run("scale")
    assert len(set(names["batch"].indices.tolist())) == 10


@pytest.mark.usefixtures("few_configurations")
def test_people_who_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = run("labelling")
    assert names["points"].size == 4
    assert sorted(names["labels"].tolist()) == [0, 0, 1, 2]
    # Five of the first ten are out, and five more: none of them twice.
    with bb.Session.open("labels.db") as session:
        assert (session.pending.size, session.skipped.size) == (10, 1)
        assert set(names["more"].tolist()) <= {*session.pending.tolist()}


def test_when_to_stop(capsys: pytest.CaptureFixture[str]):
    names = run("stopping")
    estimate, truth = names["estimate"], (names["predicted"] == names["y"]).mean()
    assert estimate.lower < truth < estimate.upper < estimate.lower + 0.12
    assert "95.0%" in capsys.readouterr().out


@pytest.mark.usefixtures("few_configurations")
def test_a_head_on_features(capsys: pytest.CaptureFixture[str]):
    names = run("head")
    labels, correct = map(int, capsys.readouterr().out.splitlines()[-1].split())
    assert labels == 40
    assert correct > 0.85 * 597
    assert np.mean(names["predicted"] == names["y"]) > 0.8
    assert len(set(names["batch"].indices.tolist())) == 5


@pytest.mark.usefixtures("few_configurations")
def test_own_model_in_the_loop(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    classes = np.arange(400, dtype=np.int32) % 10
    x = rng.normal(size=(400, 4)).astype(np.float32) + classes[:, None]
    easy = bb.datasets.Dataset("easy", x, classes, x[:50], classes[:50], num_classes=10)
    monkeypatch.setattr(bb.datasets, "load_digits", lambda: easy)
    monkeypatch.setattr(bb, "PAPER", bb.PAPER._replace(steps_per_epoch=20, max_epochs=2))
    names = run("loop")
    assert len(capsys.readouterr().out.splitlines()) == 11

    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (6, 4, 3)))
    log_probs = log_probs.at[2].set(log_probs[2, :1]).at[5].set(jnp.nan)
    batch = names["variance"].select(
        jax.random.key(0),
        bb.Inputs(log_probs),
        batch_size=4,
        available=jnp.arange(6) != 0,
        pending=jnp.asarray([3, -1]),
    )
    # Point 2 does not vary at all, and point 5 is broken.
    assert sorted(batch.indices[:2].tolist()) == [1, 4]
    assert batch.indices[2:].tolist() == [2, -1]


def test_data_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run("runs")
    dataset = bb.datasets.load_dataset("flowers.npz")
    assert dataset.class_names == ("daisy", "rose", "tulip")
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((250, 16), (50, 16))


def test_features_from_the_pool(capsys: pytest.CaptureFixture[str]):
    names = run("features")
    assert names["x"].shape == (1200, 100)
    # The pixels with the same labels: 0.70.
    assert float(capsys.readouterr().out) > 0.75


def test_the_catalogue_is_listed_as_it_is():
    section = PAGES["choosing"].read_text().partition("## The catalogue")[2]
    assert re.findall(r"^\| `(.*?)`", section, re.MULTILINE) == list(bb.catalogue())


def test_every_public_name_is_on_a_page_of_the_api():
    pages = [path.read_text() for path in (REPOSITORY / "docs" / "api").glob("*.rst")]
    folders = " ".join(re.findall(r"^\.\. public-names:: (.*)$", "\n".join(pages), re.MULTILINE))
    missing = [name for name in bb.__all__ if bb._LAZY[name].split(".")[0] not in folders.split()]
    assert not missing, "add their folder to a page in docs/api"
    assert len(set(folders.split())) == len(folders.split()), "a folder is on two pages"
