"""`bbald label-studio`: which project, which classes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import bbald_jax as bb

pytest.importorskip("httpx", reason="needs the extra label-studio")
from studio_replay import TOKEN, Replay

from bbald_jax.cli import label_studio_command as command
from bbald_jax.cli.main import main
from bbald_jax.labelling.label_studio.client import LabelStudio
from bbald_jax.labelling.label_studio.control import project_settings


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("text\none two\nthree four\nfive six\n")
    return tmp_path / "data.csv"


@pytest.fixture
def server() -> Replay:
    return Replay()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, server: Replay):
    """The command without rounds, and without learning."""
    monkeypatch.setattr(
        command, "LabelStudio", lambda *given: LabelStudio(*given, transport=server)
    )
    monkeypatch.setattr(command.Learning, "start", lambda _: None)
    monkeypatch.setattr(command.Bridge, "run", lambda *_: None)
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)

    def run(*args: Any, url: str = "http://localhost:8080", expected: int = 0) -> str:
        given = ["label-studio", "--url", url, *map(str, args)]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == expected, result.output
        assert TOKEN not in result.output
        return result.output

    return run


def make_project(server: Replay, **changes: Any) -> None:
    client = LabelStudio("http://localhost", TOKEN, transport=server)
    client.create_project(project_settings("Cats", "", ["cat", "dog"], "text") | changes)


def test_a_project_is_made_once_and_the_session_remembers_it(run: Any, server: Replay, texts: Path):
    make_project(server)
    first = run(texts, "--create", "My cats", "--classes", "cat,dog")
    assert "made project 2, 'My cats'" in first
    assert "label at: http://localhost:8080/projects/2/data" in first
    assert "warning" not in first
    assert "found project 2, 'My cats'" in run(texts, "--create", "My cats")
    assert "/projects/2/data" in run(texts)
    assert "/projects/1/data" in run(texts, "--project", 1)
    assert "/projects/1/data" in run(texts)
    assert len(server.projects) == 2
    for file in texts.parent.iterdir():
        assert TOKEN.encode() not in file.read_bytes()


def test_a_project_that_is_there_brings_its_classes(run: Any, server: Replay, texts: Path):
    make_project(server, sampling="Uniform sampling")
    said = run(texts, "--project", 1)
    assert "warning: the project's sampling is 'Uniform sampling'" in said
    with bb.Session.open(texts.with_name("data.csv.labels.db")) as session:
        assert session.classes == ("cat", "dog")


def test_others_who_may_read_the_token_are_warned_of(run: Any, server: Replay, texts: Path):
    make_project(server)
    there = "http://studio.example.com"
    assert "warning: nothing is encrypted" in run(texts, "--project", 1, url=there)


def test_what_does_not_fit_is_refused_in_one_line(
    run: Any, server: Replay, texts: Path, monkeypatch: pytest.MonkeyPatch
):
    make_project(server)

    def refused(*args: Any, **more: Any) -> str:
        *_, line = run(*args, expected=2, **more).splitlines()
        return line

    session = texts.with_name("data.csv.labels.db")
    assert "--project, --create: two projects" in refused(texts, "--project", 1, "--create", "abc")
    wrong = refused(texts, "--project", 1, "--classes", "cat,bird")
    assert 'lacks the classes bird; write <Choice value="bird"/>' in wrong
    assert "no project 7 there" in refused(texts, "--project", 7)
    assert "--url: no address" in refused(texts, "--project", 1, url="localhost")
    assert "--classes: name at least one" in refused(texts, "--create", "abc")
    assert "--project: which, at this --url?" in refused(texts, "--classes", "cat,dog")
    assert not session.exists(), "refused, and a session left behind"
    run(texts, "--project", 1)
    elsewhere = refused(texts, url="http://127.0.0.1:8080")
    assert "--project: which, at this --url?" in elsewhere, "another server has another project 1"
    wrong = refused(texts, "--project", 1, "--classes", "cat,dog,bird")
    assert "lacks the classes bird" in wrong
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", "wrong")
    assert "the token is refused" in refused(texts, "--project", 1)
    monkeypatch.delenv("LABEL_STUDIO_TOKEN")
    assert "--token: none; set LABEL_STUDIO_TOKEN" in refused(texts, "--project", 1)
