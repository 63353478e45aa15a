"""The page with 100,000 items: from an answer to the next item, in a browser, and memory.

    python -m experiments.benchmarks.benchmark_page

`bbald label` runs as people run it, on an array of images with rows of features made at random
(two clusters for each class), while Chromium presses the right keys, one each `PAUSE` seconds. In
the page: from the key to when the next image is there, complete and not blank, on the clock of the
page. Of the server: how long the reply to each answer took, as the browser saw it, the seconds of
its processor that a label costs, all told, and its largest memory. Needs playwright and a Chromium
(`apt-get install chromium`). Writes `results/page/page.md`. Two minutes. To try it: `--num-items
2000 --output page.md`.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "page" / "page.md"
NUM_ITEMS, NUM_CLASSES, NUM_FEATURES, NUM_ANSWERS, PAUSE = 100_000, 10, 64, 60, 1.0
NEXT_MS = 100.0
KEYS = "123456789a"
# Presses happen in the page, so that its own clock has them; a frame is 17 ms, and is counted in.
PRESS = """key => new Promise(resolve => {
  const item = document.getElementById("item"), before = item.dataset.shown;
  const start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const look = () => {
    const image = item.querySelector("img");
    const isNew = item.dataset.shown !== before && image && image.complete && image.naturalWidth;
    if (isNew) resolve(performance.now() - start); else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""
REPLIES = """() => performance.getEntriesByType("resource")
  .filter(entry => entry.name.endsWith("/api/answer")).map(entry => entry.duration)"""


def make(folder: Path, num_items: int) -> np.ndarray:
    """Images and features in files, and the classes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, NUM_CLASSES, num_items)
    images = rng.integers(0, 80, (num_items, 28, 28), np.uint8)
    images += (17 * truth).astype(np.uint8)[:, None, None]
    centres = rng.normal(size=(NUM_CLASSES, 2, NUM_FEATURES))
    which = rng.integers(0, 2, num_items)
    rows = centres[truth, which] + 0.7 * rng.normal(size=(num_items, NUM_FEATURES))
    np.save(folder / "images.npy", images)
    np.save(folder / "rows.npy", rows.astype(np.float32))
    return truth


def status_bytes(process: int, name: str) -> int:
    """A number of kB in what Linux says of a process, in bytes."""
    text = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.M)[0])


def cpu_seconds(process: int) -> float:
    """Of a process and its threads, so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def label(folder: Path, truth: np.ndarray, num_answers: int) -> dict[str, Any]:
    """Label in a browser, and what was measured."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "bbald_jax", "label", str(folder / "images.npy")]
    command += ["--classes", ",".join(f"class {number}" for number in range(NUM_CLASSES))]
    command += ["--features", str(folder / "rows.npy"), "--no-open"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        said = next(filter(None, map(re.compile(r"http://\S+").search, server.stdout)))
        address, started = said.group(), time.monotonic() - began
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector("#item img")
            shown_after = time.monotonic() - began
            text = "() => /learnt from/.test(document.getElementById('stage').textContent)"
            page.wait_for_function(text, timeout=600_000)
            planned_after, cpu = time.monotonic() - began, cpu_seconds(server.pid)
            nexts = []
            for _ in range(num_answers):
                shown = page.locator("#item").get_attribute("data-shown")
                nexts.append(page.evaluate(PRESS, KEYS[truth[int(shown or 0)]]))
                page.wait_for_timeout(1000 * PAUSE)
            replies = page.evaluate(REPLIES)
            browser.close()
        used = cpu_seconds(server.pid) - cpu
        peak = status_bytes(server.pid, "VmHWM")
        mapped = status_bytes(server.pid, "RssFile")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert len(replies) == num_answers
    return {
        "address": started,
        "first": shown_after,
        "plan": planned_after,
        "nexts": nexts,
        "replies": replies,
        "cpu": used / num_answers,
        "peak": peak,
        "mapped": mapped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the page on which people label.")
    parser.add_argument("--num-items", type=int, default=NUM_ITEMS)
    parser.add_argument("--num-answers", type=int, default=NUM_ANSWERS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        truth = make(Path(folder), args.num_items)
        found = label(Path(folder), truth, args.num_answers)
    load = max(load, os.getloadavg()[0])

    def row(name: str, values: list[float]) -> list[Any]:
        ordered = sorted(values)
        return [name, statistics.median(values), ordered[int(0.95 * len(values))], ordered[-1]]

    slow = [value for value in found["nexts"] if value > NEXT_MS]
    reporting.write(
        args.output,
        f"# The page with {args.num_items:,} items",
        reporting.machine("bbald_jax", "jax", "starlette", "uvicorn"),
        f"{args.num_answers} answers in Chromium, one each {PAUSE:g} s beside what it takes, while "
        "the head is refitted. Items are images of 28 x 28 pixels, features "
        f"{NUM_FEATURES} numbers, classes {NUM_CLASSES}. Milliseconds on the clock; a frame of the "
        "screen, 17 ms, is in the first row, as it is for people. The machine was busy with other "
        f"work: a load of {load:.1f} on {os.cpu_count()} cores.",
        reporting.table(
            ["", "median", "95 %", "slowest"],
            [
                row("from a key to the next item", found["nexts"]),
                row("the server's reply to an answer", found["replies"]),
            ],
        ),
        f"The next item within {NEXT_MS:g} ms: {args.num_answers - len(slow)} of "
        f"{args.num_answers} times.",
        f"From the command to the address {found['address']:.1f} s, to the first item "
        f"{found['first']:.1f} s, to the first fit and plan {found['plan']:.1f} s. "
        f"{found['cpu']:.2f} s of the processor for each label, all told. Largest memory "
        f"{found['peak'] / 1e6:,.0f} MB, of which files that are mapped "
        f"{found['mapped'] / 1e6:,.0f} MB.",
    )


if __name__ == "__main__":
    main()
