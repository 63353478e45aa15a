"""`bbald select --memory`: a file that is read piece by piece gives the same table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

import bbald_jax as bb
from bbald_jax.acquisition.passes import StreamProgress
from bbald_jax.acquisition.streamed_selection import select_from_source, sizes_for
from bbald_jax.cli import memory
from bbald_jax.cli.how_far import HowFar
from bbald_jax.cli.main import main

N, K, C, B, M = 40, 4, 3, 3, 64
PROBS = np.random.default_rng(0).dirichlet(np.ones(C), size=(N, K))
LITTLE = "--memory=1e-6"


def invoke(*args: str | Path) -> Result:
    options = ("--kind=probs", f"--batch-size={B}", f"--num-configurations={M}")
    return CliRunner().invoke(main, ["select", *map(str, args), *options])


@pytest.mark.parametrize("acquisition", [pytest.param("batchbald", marks=pytest.mark.slow), "epig"])
def test_the_table_is_that_of_a_selection_in_memory(tmp_path: Path, acquisition: str):
    np.save(tmp_path / "p.npy", PROBS)
    save_file({"p": np.ascontiguousarray(PROBS.transpose(1, 0, 2))}, tmp_path / "p.safetensors")
    (tmp_path / "pending.txt").write_text("3\n11\n")
    options = [f"--acquisition={acquisition}", f"--pending={tmp_path / 'pending.txt'}"]
    tables = []
    for name, more in (("p.npy", []), ("p.npy", [LITTLE]), ("p.safetensors", [LITTLE])):
        axes = "KNC" if name == "p.safetensors" else "NKC"
        output = tmp_path / "batch.json"
        result = invoke(tmp_path / name, *options, *more, f"--axes={axes}", f"--output={output}")
        assert result.exit_code == 0, result.output
        assert ("pass 1: reading 0.0 GB piece by piece" in result.stderr) == bool(more)
        tables.append((json.loads(output.read_text()), result.stdout))
    (rows, shown), *others = tables
    for other, also_shown in others:
        assert [row["index"] for row in other] == [row["index"] for row in rows]
        assert [row["predicted_class"] for row in other] == [row["predicted_class"] for row in rows]
        np.testing.assert_allclose(
            [row["score"] for row in other], [row["score"] for row in rows], atol=1e-5
        )
        assert also_shown.splitlines()[-2:] == shown.splitlines()[-2:]


@pytest.mark.parametrize(
    ("suffix", "acquisition", "words"),
    [(".npy", "kbald", "kbald cannot read"), (".npz", "bald", "only .npy and .safetensors")],
)
def test_what_needs_all_in_memory_is_refused(
    tmp_path: Path, suffix: str, acquisition: str, words: str
):
    path = tmp_path / f"p{suffix}"
    np.save(path, PROBS) if suffix == ".npy" else np.savez(path, PROBS)
    result = invoke(path, LITTLE, f"--acquisition={acquisition}")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert words in line
    assert "raise --memory" in line


def test_the_warnings_are_those_of_a_selection_in_memory():
    equal = np.tile(PROBS[:1], (N, 1, 1))
    options = {"kind": "probs", "batch_size": B, "num_configurations": M, "acquisition": "bald"}
    for probs in (equal, np.repeat(PROBS[:, :1], K, axis=1), PROBS):
        streamed = select_from_source(probs, memory=1e6, **options)
        assert streamed.warnings == bb.select(probs, **options).warnings


def test_buffer_and_pieces_fit_the_memory():
    assert sizes_for(2e9, (10**8, 20, 10)) == (50_000, 16_384)
    for memory_size in (1e9, 4e9):
        buffer, piece = sizes_for(memory_size, (10**8, 100, 100))
        assert 256 <= piece < 16_384
        assert (20 * buffer + 60 * piece) * 10_000 <= memory_size


def test_free_memory_is_the_least_that_the_system_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = {"_SYSTEM": "MemTotal: 9 kB\nMemAvailable: 5 kB\n", "_MOST": "9000", "_USED": "7000"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert memory.free_memory() == 2000
    (tmp_path / "_MOST").write_text("max\n")
    assert memory.free_memory() == 5 * 1024
    (tmp_path / "_SYSTEM").unlink()
    assert memory.free_memory() > 2**20


def test_the_time_left_is_that_of_the_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = iter([100.0, 101.0, 103.0, 112.0, 113.0])
    monkeypatch.setattr("bbald_jax.cli.how_far.time.monotonic", lambda: next(now))
    say = HowFar(4 * 10**9)
    for num_read in (0, 10, 25, 100):
        say(StreamProgress(1, num_read, 100))
    say(StreamProgress(2, 1, 100))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pass 1: reading 4.0 GB piece by piece"
    assert lines[1:3] == ["pass 1: 1.0 of 4.0 GB, 9 s left", "pass 1: 4.0 of 4.0 GB, 0 s left"]
    assert re.match("pass 2: reading", lines[3])
