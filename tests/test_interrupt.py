"""Ctrl-C while a file is being written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SLOW = """
import os, pathlib, signal, sys, time
from bbald_jax import __main__, files

def fsync(_):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = fsync
# What a test run in the background starts ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
__main__._end_at_interrupt()
files.write_atomically(pathlib.Path(sys.argv[1]), "new")
"""


def test_an_interrupt_leaves_no_part_of_a_file(tmp_path: Path):
    path = tmp_path / "batch.csv"
    path.write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(os.listdir(tmp_path)) == 2, "the new file is there, and not whole"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "\ninterrupted\n")
    assert os.listdir(tmp_path) == ["batch.csv"]
    assert path.read_text() == "old"
