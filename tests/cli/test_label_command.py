"""`bbald label` and `bbald export`: sessions that go on, and what is refused at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import bbald_jax as bb

pytest.importorskip("uvicorn", reason="needs the extra label")
from bbald_jax.cli import label_command
from bbald_jax.cli.main import main


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("text\none two\nthree four\nfive six\n")
    return tmp_path / "data.csv"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """The command with a server that ends at once, and without learning."""
    monkeypatch.setattr(label_command.uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(label_command.Learning, "start", lambda _: None)

    def run(*args: Any, expected: int = 0) -> str:
        result = CliRunner().invoke(main, [*map(str, args)])
        assert result.exit_code == expected, result.output
        return result.output

    return run


def test_a_session_begins_beside_the_data_and_goes_on(run: Any, texts: Path):
    said = run("label", texts, "--no-open", "--classes", "cat, dog")
    assert "3 items, 0 labelled" in said
    assert "http://127.0.0.1:" in said
    assert "/?token=" in said
    path = texts.with_name("data.csv.labels.db")
    with bb.Session.open(path) as session:
        assert session.classes == ("cat", "dog")
        session.import_labels([1], ["dog"], annotator="anna")
    assert "3 items, 1 labelled" in run("label", texts, "--no-open", "--classes", "cat,bird")
    with bb.Session.open(path) as session:
        assert session.classes == ("cat", "dog", "bird")
    assert "1 labels written" in run("export", path, "--output", texts.with_name("out.csv"))
    assert texts.with_name("out.csv").read_text().splitlines()[1].startswith("1,dog,anna,")


def test_two_starts_have_two_tokens_and_everybody_is_warned(run: Any, texts: Path):
    one = run("label", texts, "--no-open", "--classes", "a,b", "--host", "0.0.0.0")
    two = run("label", texts, "--no-open")
    assert "warning: --host 0.0.0.0" in one
    assert "nothing is encrypted" in one
    assert "warning" not in two
    tokens = [said.partition("token=")[2].split()[0] for said in (one, two)]
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 32


def test_new_images_are_added(run: Any, tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "photos"
    folder.mkdir()
    image.new("L", (4, 4)).save(folder / "b.png")
    run("label", folder, "--no-open", "--classes", "a,b")
    image.new("L", (4, 4)).save(folder / "a.png")
    assert "1 new images" in run("label", folder, "--no-open")
    with bb.Session.open(tmp_path / "photos.labels.db") as session:
        assert session.ids.tolist() == ["b.png", "a.png"]


def test_what_does_not_fit_is_refused_in_one_line(run: Any, texts: Path, tmp_path: Path):
    def refused(*args: Any) -> str:
        *_, line = run("label", *args, "--no-open", expected=2).splitlines()
        return line

    assert "--classes: name at least one" in refused(texts)
    assert "--features image: not for a text" in refused(
        texts, "--classes", "a", "--features", "image"
    )
    np.save(tmp_path / "rows.npy", np.zeros((2, 5)))
    wrong = refused(texts, "--classes", "a", "--features", tmp_path / "rows.npy")
    assert "expected numbers [3, D]" in wrong
    texts.write_text("text\nother\nthree four\nfive six\n")
    assert "are not the 3 that" in refused(texts)


def test_a_port_that_is_taken_is_said(run: Any, texts: Path):
    listener = label_command._listen("127.0.0.1", None)
    port = listener.getsockname()[1]
    said = run("label", texts, "--no-open", "--classes", "a", "--port", port, expected=2)
    assert f"port {port}: Address already in use; give another --port" in said
    other = label_command._listen("127.0.0.1", None)
    assert other.getsockname()[1] != port
    listener.close()
    other.close()
