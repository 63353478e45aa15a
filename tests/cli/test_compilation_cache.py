"""What was compiled once is not compiled again, and nothing is left where nothing may be."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from bbald_jax.cli import compilation_cache
from bbald_jax.cli.compilation_cache import VARIABLE, cache_folder, compiled_programs_kept, shorten

COUNTED = """
import atexit, sys
import jax
from bbald_jax.__main__ import main

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.rpartition("/")[2]))
atexit.register(lambda: print(*(name for name in events if "cache_" in name), file=sys.stderr))
main()
"""


def select(predictions: Path, caches: Path) -> Counter[str]:
    """Hits and misses of a process of its own."""
    options = ("--kind=probs", "--acquisition=random", "--batch-size=2")
    result = subprocess.run(
        [sys.executable, "-c", COUNTED, "select", str(predictions), *options],
        env={**os.environ, "XDG_CACHE_HOME": str(caches), VARIABLE: "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "random: points to label" in result.stdout
    (line,) = result.stderr.splitlines()  # and no warning
    return Counter(line.split())


@pytest.mark.skipif(sys.platform == "darwin", reason="XDG_CACHE_HOME is not asked")
def test_a_second_process_compiles_nothing_and_mends_what_is_damaged(tmp_path: Path):
    predictions = tmp_path / "probs.npy"
    np.save(predictions, np.random.default_rng(0).dirichlet(np.ones(3), size=(8, 4)))
    first = select(predictions, tmp_path)
    folder = tmp_path / "bbald_jax" / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700  # what lies there is run
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) == first["cache_misses"] > 3
    assert select(predictions, tmp_path) == {"cache_hits": first.total()}
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == files

    # As a process leaves it that is killed while it writes, or a full disk.
    (damaged,) = folder.glob("jit__threefry_seed-*")
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert select(predictions, tmp_path) == {"cache_misses": 1, "cache_hits": first.total() - 1}
    assert {*folder.iterdir()} == {*files} - {damaged}, "JAX itself would not replace it"


def test_the_folder_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "bbald_jax" / "compiled"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "bbald_jax" / "compiled"


def test_a_folder_that_cannot_be_or_is_anothers_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")  # which would be set, and stay
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cache_folder() is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder() is None
    with compiled_programs_kept():
        assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.parametrize("value", ["0", "off", "False", "no"])
def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv(VARIABLE, value)
    monkeypatch.setattr(compilation_cache, "cache_folder", lambda: pytest.fail("made"))
    with compiled_programs_kept():
        assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_folder_that_jax_was_told_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")  # which would be set, and stay
    monkeypatch.setattr(compilation_cache, "cache_folder", lambda: pytest.fail("made"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    try:
        with compiled_programs_kept():
            assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "theirs")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_what_was_not_read_for_longest_goes_first(tmp_path: Path):
    for name, read, written in (("a", 5, 1), ("b", 3, 3), ("c", 2, 2), ("d", 1, 4)):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (read, written))
    shorten(tmp_path, 40)
    assert len(os.listdir(tmp_path)) == 4
    shorten(tmp_path, 29)
    assert sorted(os.listdir(tmp_path)) == ["a", "d"]
