"""The labeller in a real notebook: JupyterLab and Notebook on this machine, opened in Chromium.

Slow: a server, a kernel and their pages start before the first key. Skipped where playwright,
Chromium, anywidget, or the one or the other (Notebook is in no extra) is missing.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("anywidget", reason="needs the extra widget")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or the like"),
]

NUM_ITEMS = 60
CELL = """import numpy as np
from bbald_jax.labelling.widget import Labeller

labeller = Labeller(
    np.load("images.npy"), ["dark", "light"], "labels.db", np.load("rows.npy"), annotator="anna"
)
labeller"""
# What is shown has changed, and can be seen.
IS_NEW = """before => {
  const root = document.querySelector(".bbald-label")?.shadowRoot;
  const item = root?.getElementById("item"), image = item?.querySelector("img");
  return image && item.dataset.shown !== before && image.complete && image.naturalWidth;
}"""
CELLS = "document.querySelectorAll('.jp-Notebook .jp-Cell').length"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A notebook of three cells, with its data."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, NUM_ITEMS)
    images = rng.integers(0, 100, (NUM_ITEMS, 12, 12)) + 155 * truth[:, None, None]
    np.save(folder / "images.npy", images.astype(np.uint8))
    np.save(folder / "rows.npy", rng.normal(size=(NUM_ITEMS, 8)) + 3 * truth[:, None])
    np.save(folder / "truth.npy", truth)
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": s}
        for s in (CELL, "# below", "# the last")
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}}
    content = json.dumps({**notebook, "nbformat": 4, "nbformat_minor": 4})
    (folder / "label.ipynb").write_text(content)
    return folder


@pytest.fixture(params=["jupyterlab", "notebook"])
def address(folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the notebook is open."""
    pytest.importorskip(request.param)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    token = "t" * 40
    command = [sys.executable, "-m", request.param, "--no-browser", f"--port={port}"]
    command += ["--ip=127.0.0.1", "--allow-root", f"--IdentityProvider.token={token}"]
    home = {name: str(folder / "home") for name in ("HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
    root = str(Path(bb.__file__).parents[1])
    environment = {**os.environ, **home, "PYTHONPATH": root}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        place = {"jupyterlab": "lab/tree", "notebook": "notebooks"}[request.param]
        yield f"http://127.0.0.1:{port}/{place}/label.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait()


def shown(page: Any) -> str:
    return page.locator(".bbald-label #item").get_attribute("data-shown")


def press(page: Any, key: str) -> None:
    """One answer, until the next item can be seen."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function(IS_NEW, arg=before)


def says(page: Any, text: str) -> None:
    playwright.expect(page.locator(".bbald-label #count")).to_contain_text(text, timeout=20_000)


def test_labels_by_keyboard_in_a_cell_of_a_notebook(folder: Path, address: str, tmp_path: Path):
    pictures = Path(os.environ.get("BBALD_PICTURES", tmp_path))
    truth = np.load(folder / "truth.npy")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        elsewhere: list[str] = []
        page.on(
            "request",
            lambda request: (
                elsewhere.append(request.url)
                if request.url.startswith("http") and "//127.0.0.1:" not in request.url
                else None
            ),
        )
        page.goto(address)
        prompt = page.locator(".jp-Notebook .jp-InputPrompt").first
        while "[ ]" in (prompt.text_content(timeout=60_000) or ""):  # no kernel is there yet
            page.locator(".jp-Notebook .jp-Cell .cm-content").first.click(timeout=60_000)
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(2_000)
        page.wait_for_function(IS_NEW, arg="", timeout=120_000)
        elsewhere.clear()  # what Jupyter itself asked for

        # Before the labeller has the focus, a key is no answer: here it is the notebook's.
        page.locator(".jp-Notebook .jp-Cell .cm-content").last.click()
        page.keyboard.type("1")
        says(page, "0 of 60")

        page.locator(".bbald-label #item").click()
        for _ in range(12):
            press(page, "12"[truth[int(shown(page))]])
        says(page, "12 of 60")
        press(page, "-")
        press(page, "?")
        says(page, "12 of 60 labelled (1 skipped, 1 unsure)")
        press(page, "Backspace")
        says(page, "12 of 60 labelled (1 skipped)")
        # Commands of the notebook: new cells above and below, cut, delete.
        for key in ("a", "b", "x", "d", "d", "Shift+Enter", "Escape", "ArrowDown"):
            page.keyboard.press(key)
        assert page.evaluate(CELLS) == 3
        press(page, "12"[truth[int(shown(page))]])  # and the focus is where it was
        says(page, "13 of 60")
        page.screenshot(path=str(pictures / "cell.png"))

        page.locator(".bbald-label #new-class").fill("other")
        page.keyboard.press("Enter")
        page.locator(".bbald-label #classes button:nth-child(3)").click()
        says(page, "14 of 60")
        press(page, "12"[truth[int(shown(page))]])  # after a click, keys are answers
        says(page, "15 of 60")
        stage = page.locator(".bbald-label #stage")
        playwright.expect(stage).to_have_text("The model has learnt from 15.", timeout=60_000)
        page.locator(".bbald-label #to-review").click()
        page.locator(".bbald-label #confident .thumb img").first.wait_for()
        page.wait_for_function(
            "() => [...document.querySelector('.bbald-label').shadowRoot"
            ".querySelectorAll('#confident img')].every(image => image.naturalWidth)"
        )
        page.screenshot(path=str(pictures / "review.png"))
        page.locator(".bbald-label #to-label").click()

        # The page is loaded again while the kernel runs on: the cell is there, and goes on.
        page.keyboard.press("Control+s")
        page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
        page.reload()
        page.wait_for_function(IS_NEW, arg="", timeout=60_000)
        says(page, "15 of 60")
        page.locator(".bbald-label #item").click()
        press(page, "12"[truth[int(shown(page))]])
        says(page, "16 of 60")
        assert elsewhere == []
        browser.close()
    with bb.Session.open(folder / "labels.db") as session:
        assert {answer.annotator for answer in session.answers} == {"anna"}
        points, labels = session.labelled
        assert len(points) == 16
        assert (labels == 2).sum() == 1
        assert all(label in (2, truth[point]) for point, label in zip(points, labels, strict=True))
        assert len(session.skipped) == 1
