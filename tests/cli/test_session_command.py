"""`bbald session`: what a file holds, and what is left of a damaged one."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bbald_jax.cli.main import main
from bbald_jax.labelling.session import Session


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["session", *map(str, args)])


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert all(word in line for word in words), line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "labels.db"
    with Session.create(path, num_points=5000, classes=["cat", "[b]\x1bdog"]) as session:
        session.import_labels(range(100), [0] * 100, annotator="ann")
        session.import_labels([0], [1], annotator="bob")
        session.assign([200, 201, 202])
        session.skip([202])
    return path


def test_what_a_file_holds(file: Path):
    result = invoke("info", file)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        *("points: 5,000", "labelled: 100", "pending: 2", "skipped: 1"),
        *("disagreements: 1", "annotators: 2", "  cat: 99", "  [b]\\x1bdog: 1"),
    ]


def test_a_damaged_file_is_repaired_as_its_error_says(file: Path):
    content = bytearray(file.read_bytes())
    content[100:4096] = bytes(3996)
    file.write_bytes(content)
    result = invoke("info", file)
    assert_refused(result, f"{file}: damaged", f"bbald session repair {file} --output NEW")
    new = file.with_name("new.db")
    result = invoke("repair", file, "--output", new)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"written: {new}: 106 events, 100 labelled points; 0 events were lost\n"
    )
    assert "labelled: 100" in invoke("info", new).stdout
    assert_refused(invoke("repair", file, "--output", new), "is there already")


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("notes")
    assert_refused(invoke("info", tmp_path / "notes.txt"), "not a bbald_jax session")
    assert_refused(invoke("info", tmp_path / "none.db"), "No such file")
    output = tmp_path / "new.db"
    assert_refused(invoke("repair", tmp_path / "notes.txt", "--output", output), "no event")
    assert not output.exists()
