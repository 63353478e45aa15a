"""`bbald select` and `bbald acquisitions`: from a file to a table, and refusals of one line."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import fuzz
import hypothesis
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import strategies as st

import bbald_jax as bb
from bbald_jax.cli import select_command
from bbald_jax.cli.acquisitions_command import GUIDE
from bbald_jax.cli.main import main
from bbald_jax.cli.prediction_files import read_ids, read_points
from bbald_jax.labelling.spreadsheet import from_cell

N, K, C, B, M = 8, 4, 3, 3, 64
PROBS = np.random.default_rng(0).dirichlet(np.ones(C), size=(N, K))
IDS = [f"images/[b]{i:03d} :cat:.png" for i in range(N)]
OPTIONS = ("--kind=probs", f"--batch-size={B}", f"--num-configurations={M}")
QUICK = (*OPTIONS, "--acquisition=bald")


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, one line on standard error, no traceback, and no table."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert not result.stdout
    for word in words:
        assert word in line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "predictions.npy", PROBS)
    return tmp_path / "predictions.npy"


def write(path: Path, entries: Sequence[Any]) -> Path:
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return path


@pytest.fixture(scope="module")
def batch() -> bb.Selection:
    return bb.select(PROBS, kind="probs", batch_size=B, num_configurations=M)


def test_the_batch_is_printed_with_its_certificate(file: Path, batch: bb.Selection):
    result = invoke("select", file, *OPTIONS)
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    columns = (batch.indices, batch.gains, batch.scores, batch.predicted_classes)
    assert rows == [
        [str(order), str(index), f"{gain:.4f}", f"{score:.4f}", str(predicted)]
        for order, (index, gain, score, predicted) in enumerate(zip(*columns, strict=True), 1)
    ]
    (certificate,) = [line for line in lines if line.startswith("score ")]
    assert f"no batch of {B} scores above {batch.diagnostics.upper_bound:.4f}" in certificate
    assert f"at least {batch.diagnostics.certified_ratio:.1%} of the best" in certificate
    assert "warning" not in result.stdout


def test_a_large_selection_says_how_far_it_is(file: Path, monkeypatch: pytest.MonkeyPatch):
    assert not invoke("select", file, *OPTIONS).stderr
    monkeypatch.setattr(select_command, "_MUCH", PROBS.size)
    result = invoke("select", file, *OPTIONS)
    assert result.stderr.splitlines() == [
        f"reading {PROBS.size} predictions",
        *(f"points chosen: {chosen}" for chosen in range(1, B + 1)),
    ]
    assert result.stdout == invoke("select", file, *OPTIONS).stdout


WILD = ["=1+1", "-5", "'=1+1", "@a", "\x1b[31mred", "a\nb", "\tx ", "e\rf"]


def test_wild_names_harm_no_terminal_and_no_spreadsheet_and_come_back(tmp_path: Path, file: Path):
    ids, output = tmp_path / "ids.npy", tmp_path / "batch.csv"
    np.save(ids, np.array(WILD))
    options = ("--kind=probs", "--batch-size=8", "--acquisition=random", "--ids", ids)
    result = invoke("select", file, *options, "--output", output)
    assert result.exit_code == 0, result.exception
    assert all(character.isprintable() for character in result.stdout.replace("\n", ""))
    assert "\\x1b[31mred" in result.stdout
    with output.open(newline="") as handle:
        cells = [row["id"] for row in csv.DictReader(handle)]
    assert not [cell for cell in cells if cell[0] in "=+@\t\r\n"]
    everything = invoke("select", file, *options, "--pending", output)
    assert_refused(everything, "no point is left to choose from: of 8 points all")
    order = read_points(output, read_ids(ids)).tolist()
    assert [WILD[index].strip() for index in order] == [from_cell(cell).strip() for cell in cells]


@pytest.mark.parametrize("name", ["circle.csv", "device.csv"])
def test_an_output_that_cannot_be_replaced_is_refused(tmp_path: Path, file: Path, name: str):
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    (tmp_path / "device.csv").symlink_to("/dev/full")
    assert_refused(invoke("select", file, *QUICK, "--output", tmp_path / name), name)
    assert not Path("/dev/full").is_file()


def test_names_are_printed_as_they_are_however_long(tmp_path: Path, file: Path):
    names = [f"{name}/{'x' * 150}" for name in IDS]
    result = invoke("select", file, *QUICK, "--ids", write(tmp_path / "ids.txt", names))
    assert result.exit_code == 0, result.exception
    shown = [line for line in result.stdout.splitlines() if "images/" in line]
    best = bb.select(PROBS, kind="probs", batch_size=B, acquisition="bald").indices
    assert len(shown) == B
    for line, index in zip(shown, best, strict=True):
        assert names[index] in line


def test_a_function_without_a_certificate_prints_none(file: Path):
    result = invoke("select", file, *QUICK)
    assert result.exit_code == 0, result.exception
    assert "no batch of" not in result.stdout


def test_targets_that_nobody_gave_are_said(file: Path):
    line = "targets: 8 random points of the pool (see --targets)"
    options = ("--kind=probs", "--batch-size=3", "--acquisition=epig")
    assert line in invoke("select", file, *options).stdout.splitlines()
    assert line not in invoke("select", file, *options, "--targets", file).stdout.splitlines()


def test_warnings_are_printed(file: Path):
    result = invoke("select", file, *QUICK, "--batch-size=20")
    assert "warning: 20 points were asked for, and only 8 were there" in result.stdout


@pytest.mark.parametrize("suffix", [".csv", ".json", ".JSON"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_one_row_a_point_is_written(tmp_path: Path, file: Path, suffix: str, with_ids: bool):
    output = tmp_path / f"batch{suffix}"
    output.write_text("an older batch")
    ids = ("--ids", write(tmp_path / "ids.txt", IDS)) if with_ids else ()
    result = invoke("select", file, *QUICK, *ids, "--output", output)
    assert result.exit_code == 0, result.exception
    content = output.read_text()
    rows = list(csv.DictReader(content.splitlines())) if suffix == ".csv" else json.loads(content)
    batch = bb.select(PROBS, kind="probs", batch_size=B, acquisition="bald")
    point = ["index", "id"] if with_ids else ["index"]
    assert list(rows[0]) == ["order", *point, "gain", "score", "predicted_class"]
    assert [int(row["index"]) for row in rows] == batch.indices.tolist()
    np.testing.assert_array_equal([np.float32(row["gain"]) for row in rows], batch.gains)
    if with_ids:
        assert [row["id"] for row in rows] == [IDS[index] for index in batch.indices]
    assert not list(tmp_path.glob("*.tmp"))


def test_json_has_no_infinity(tmp_path: Path):
    rows = [{"order": 1, "index": 0, "gain": -np.inf, "score": float("nan")}]
    select_command._write(tmp_path / "x.json", rows)
    (row,) = json.loads((tmp_path / "x.json").read_text())
    assert row == {"order": 1, "index": 0, "gain": None, "score": None}


@pytest.mark.parametrize("with_ids", [False, True])
def test_a_batch_that_was_written_is_pending_the_next_time(
    tmp_path: Path, file: Path, with_ids: bool
):
    ids = ("--ids", write(tmp_path / "ids.txt", IDS)) if with_ids else ()
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    invoke("select", file, *QUICK, *ids, "--output", first)
    result = invoke("select", file, *QUICK, *ids, "--pending", first, "--output", second)
    assert result.exit_code == 0, result.stderr
    chosen = [
        {row["index"] for row in csv.DictReader(path.read_text().splitlines())}
        for path in (first, second)
    ]
    assert [len(indices) for indices in chosen] == [B, B]
    assert not chosen[0] & chosen[1]


def test_lists_of_points_are_used(tmp_path: Path, file: Path):
    output = tmp_path / "batch.json"
    result = invoke(
        "select",
        file,
        *QUICK,
        "--candidates",
        write(tmp_path / "c.txt", [0, 1, 2, 3]),
        "--exclude",
        write(tmp_path / "e.csv", [1]),
        "--pending",
        write(tmp_path / "p.txt", [2]),
        "--output",
        output,
    )
    assert result.exit_code == 0, result.stderr
    assert {row["index"] for row in json.loads(output.read_text())} == {0, 3}


def test_axes_kind_and_array_are_used(tmp_path: Path):
    path, output = tmp_path / "x.npz", tmp_path / "batch.json"
    logits = np.transpose(np.log(PROBS) + 3, (1, 0, 2))
    np.savez(path, other=logits[:1], pool=logits)
    options = (*QUICK, "--kind=logits", "--axes=KNC", "--array=pool", "--output", output)
    result = invoke("select", path, *options)
    assert result.exit_code == 0, result.stderr
    batch = bb.select(PROBS, kind="probs", batch_size=B, acquisition="bald")
    assert [row["index"] for row in json.loads(output.read_text())] == batch.indices.tolist()


@pytest.mark.parametrize("output", ["batch.txt", "batch", "missing/batch.csv", ".", "e.csv"])
def test_an_output_that_cannot_be_is_refused_before_computing(
    tmp_path: Path, file: Path, output: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(select_command, "read_predictions", lambda *_: pytest.fail("too late"))
    exclude = write(tmp_path / "e.csv", [1])
    path = tmp_path / output
    result = invoke("select", file, *QUICK, "--exclude", exclude, "--output", path)
    assert_refused(result, f"--output {path}: ")
    assert exclude.read_text() == "1\n"


def test_an_output_that_fails_is_one_line(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(select_command, "write_atomically", full)
    result = invoke("select", file, *QUICK, "--output", tmp_path / "batch.csv")
    assert_refused(result, "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--axes=KCN",), ("probs[0, 0]", "sums to", "see axes")),
        (("--axes=abc",), ("axes", "as in KNC")),
        (("--kind=log-probs",), ("log_probs[0, 0, 0]", "kind probs")),
        (("--array=pool",), ("predictions.npy", "without a name")),
        (("--exclude=missing.txt",), ("missing.txt", "no such file")),
        (("--targets=predictions.npy",), ("targets", "bald does not look")),
        (("--exclude=far.txt",), ("exclude[1]", "outside 0 to 7")),
        (("--exclude=far.txt", "--ids=ids.txt"), ("far.txt", "is none of the names")),
        (("--ids=far.txt",), ("far.txt", "2 names for 8 points")),
        (("--candidates=near.txt", "--exclude=near.txt"), ("no point is left",)),
        (("--pending=near.txt", "--exclude=near.txt"), ("point 1 is in both",)),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "far.txt", [1, 99])
    write(tmp_path / "near.txt", [1, 2])
    write(tmp_path / "ids.txt", IDS)
    words = tuple(
        word.replace("predictions", "probs") if "axes" in word else word for word in words
    )
    result = invoke("select", "predictions.npy", *QUICK, *arguments)
    assert_refused(result, *words)


def test_more_than_the_memory_is_one_line(file: Path, monkeypatch: pytest.MonkeyPatch):
    def too_much(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("Unable to allocate 7 PiB")

    monkeypatch.setattr(select_command, "select_points", too_much)
    assert_refused(invoke("select", file, *QUICK), "Unable to allocate 7 PiB")


@pytest.mark.parametrize(
    "arguments",
    [("--kind=odds",), ("--batch-size=0",), ("--acquisition=bold",), ("--seed=-1",)],
)
def test_options_out_of_range_are_refused(file: Path, arguments: tuple[str, ...]):
    result = invoke("select", file, *OPTIONS, *arguments)
    assert result.exit_code == 2
    assert arguments[0].partition("=")[0] in result.stderr


def test_the_kind_is_never_guessed(file: Path):
    result = invoke("select", file)
    assert result.exit_code == 2
    assert "--kind" in result.stderr


def test_every_option_is_explained():
    command = main.commands["select"]
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
    assert invoke("select", "--help").exit_code == 0


def test_acquisitions_lists_the_catalogue_one_line_each():
    result = invoke("acquisitions")
    assert result.exit_code == 0
    listed, _, guide = result.stdout.partition("\n\n")
    lines = dict(line.split(maxsplit=1) for line in listed.splitlines())
    catalogue = bb.catalogue()
    assert list(lines) == list(catalogue)
    for name, function in catalogue.items():
        assert function.description, name
        assert function.description in lines[name]
        assert ("target predictions" in lines[name]) == ("target_log_probs" in function.requires)
    assert all(". Needs " in line for line in lines.values()), "two sentences"
    assert lines["random"].endswith("Needs nothing.")
    assert lines["bald"].endswith("Needs predictions.")
    # The guide names functions that there are.
    advised = {name for _, names, _ in GUIDE for name in names.replace(";", ",").split(", ")}
    assert advised <= set(catalogue)
    assert all(name in guide for name in advised)


def _files() -> dict[str, Any]:
    """What lies in the folder: good and bad, by name."""
    with_nan = PROBS.copy()
    with_nan[1, 2, 0] = np.nan
    return {
        "good.npy": PROBS,
        "nan.npy": with_nan,
        "flat.npy": PROBS[0],
        "empty.npy": PROBS[:0],
        "words.npy": np.array(IDS),
        "mask.npy": np.arange(N) < 2,
        "short.npy": np.arange(N - 1) < 2,
        "integers.npy": np.arange(3),
        "ids.txt": "\n".join(IDS),
        "two.csv": "a,b\n1,2\n",
        "far.txt": "1\n99\n",
        "some.txt": "1\n2\n",
        "none.txt": "",
        "noise.npz": b"\x00\xff" * 40,
        "noise.safetensors": b"\xff" * 40,
        "pickle.npy": b"\x80\x04N.",
        "noise.txt": b"\xff\xfe\x00",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, content in _files().items():
        if isinstance(content, np.ndarray):
            np.save(folder / name, content)
        else:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
    (folder / "folder.npy").mkdir()
    return folder


_NAMES = st.sampled_from([*_files(), "folder.npy", "missing.npy", "missing", ""])
_MOSTLY_GOOD = st.one_of(*[st.just("good.npy")] * 3, _NAMES)
_LISTS = st.one_of(st.just("some.txt"), st.just("mask.npy"), _NAMES)
_ARGUMENTS = st.fixed_dictionaries(
    {"--kind": st.sampled_from(["probs", "probs", "probs", "logits", "log-probs", "odds"])},
    optional={
        "--acquisition": st.sampled_from(["bald", "random", "bold"]),
        "--batch-size": st.sampled_from(["1", "3", "9" * 18, "0", "x"]),
        "--axes": st.sampled_from(["NKC", "CKN", "N"]),
        "--array": st.sampled_from(["", "pool"]),
        "--seed": st.sampled_from(["0", "-1", "1e3"]),
        "--exclude": _LISTS,
        "--pending": _LISTS,
        "--candidates": _LISTS,
        "--targets": _NAMES,
        "--ids": st.one_of(st.just("ids.txt"), _NAMES),
        "--output": st.sampled_from(["out.csv", "out.json", "out.txt", "no/out.csv", ""]),
    },
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(predictions=_MOSTLY_GOOD, arguments=_ARGUMENTS, kept=st.sets(st.integers(0, 10)))
def test_any_command_line_ends_in_a_table_or_in_exit_code_2(
    folder: Path, predictions: str, arguments: dict[str, str], kept: set[int]
):
    """Of the options drawn only a few are given: with all of them, nothing would get through."""
    arguments = {"--acquisition": "bald"} | {
        option: value
        for place, (option, value) in enumerate(arguments.items())
        if option == "--kind" or place in kept
    }
    words = [f"{option}={value}" for option, value in arguments.items()]
    runner = CliRunner()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        result = runner.invoke(main, ["select", predictions, *words])
    assert isinstance(result.exception, SystemExit | None), (words, result.exception)
    fuzz.CASES["bbald select"]["answered" if result.exit_code == 0 else "refused"] += 1
    if result.exit_code == 0:
        assert "points to label" in result.stdout
    else:
        assert result.exit_code == 2
        *usage, line = result.stderr.strip().split("Error: ")
        assert line.strip()
        # What click refuses by itself comes with its line on the usage.
        assert all(not text or text.startswith("Usage: ") for text in usage)
        assert not result.stdout
