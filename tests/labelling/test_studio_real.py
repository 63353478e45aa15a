"""A real Label Studio with a real browser, two rounds; slow: the installation alone takes minutes.

    BBALD_LABEL_STUDIO=FOLDER pytest -m slow tests/labelling/test_studio_real.py

FOLDER keeps the installation (1 GB) for the next time; without it, it is made anew. Skipped without
playwright and Chromium.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("httpx", reason="needs the extra label-studio")
import httpx
import studio_server
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium, or the like"),
]

N, QUEUE = 60, 8
SUBMIT, SKIP = "bottombar-submit-button", "bottombar-skip-button"
# The pixels of the image that is shown, each of which was enlarged to 24 x 24; null before it is.
SHOWN = """() => {
  const image = [...document.images].find(each => each.src.startsWith("blob:"));
  if (!image || !image.complete || image.naturalWidth !== 288) return null;
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  canvas.width = canvas.height = 288;
  pen.drawImage(image, 0, 0);
  const grey = pen.getImageData(0, 0, 288, 288).data, pixels = [];
  for (let y = 12; y < 288; y += 24) {
    for (let x = 12; x < 288; x += 24) pixels.push(grey[4 * (288 * y + x)]);
  }
  return pixels;
}"""


class Bridge:
    """`bbald label-studio` in a process, which can be killed and started again."""

    def __init__(self, folder: Path, server: studio_server.Running, *first: str) -> None:
        self.folder, self.server, self.log = folder, server, folder / "bridge.txt"
        self.start(*first)

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "bbald_jax", "label-studio", "images.npy", *more]
        command += ["--url", self.server.url, "--features", "rows.npy", "--queue", str(QUEUE)]
        command += ["--interval", "0.5"]
        more_env = {"LABEL_STUDIO_TOKEN": self.server.token, "PYTHONUNBUFFERED": "1"}
        log = open(self.log, "a")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **more_env}
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 300
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.3)


def sign_in(browser: Any, server: studio_server.Running) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # of a machine that is busy
    page.goto(f"{server.url}/user/login/")
    page.fill("input[name=email]", studio_server.USER)
    page.fill("input[name=password]", studio_server.PASSWORD)
    page.click("[type=submit]")
    page.wait_for_url("**/")
    return page


def test_two_rounds_in_a_real_browser_with_the_bridge_killed_between(tmp_path: Path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, N)
    images = rng.integers(0, 100, (N, 12, 12)) + 155 * truth[:, None, None]
    np.save(tmp_path / "images.npy", images.astype(np.uint8))
    rows = rng.normal(size=(N, 8)) + 3 * truth[:, None]
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    folder = Path(os.environ.get("BBALD_LABEL_STUDIO") or tmp_path)
    with (
        studio_server.running(folder) as server,
        sync_playwright() as driver,
        contextlib.ExitStack() as ends,
    ):
        headers = {"Authorization": f"Token {server.token}"}
        http = httpx.Client(base_url=server.url, headers=headers, timeout=60)

        def tasks() -> list[dict[str, Any]]:
            params = {"project": 1, "fields": "all", "page_size": 200}
            found = http.get("/api/tasks", params=params).json().get("tasks", [])
            return sorted(found, key=lambda task: task["id"])

        bridge = Bridge(tmp_path, server, "--create", "Dark or light", "--classes", "dark,light")
        ends.callback(bridge.kill)
        bridge.wait_for(lambda: f"{QUEUE} in the queue" in bridge.log.read_text())
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = sign_in(browser, server)
        page.goto(f"{server.url}/projects/1/data")
        page.get_by_text("Label All Tasks").first.click()
        seen: list[int] = []

        def look() -> int:
            """The item that is shown, once another one than the last is."""
            until = time.monotonic() + 300
            while time.monotonic() < until:
                if (pixels := page.evaluate(SHOWN)) is not None:
                    is_it = (images.reshape(N, -1) == pixels).all(axis=1)
                    if is_it.any() and is_it.argmax() not in seen[-1:]:
                        return int(is_it.argmax())
                page.wait_for_timeout(100)
            page.screenshot(path=tmp_path / "nothing.png")
            raise AssertionError(f"after {seen} nothing comes; see {tmp_path / 'nothing.png'}")

        def answer(button: str = SUBMIT) -> None:
            point = look()
            if button == SUBMIT:
                page.keyboard.press(str(1 + truth[point]))
            page.screenshot(path=tmp_path / f"{len(seen)}.png")
            page.get_by_test_id(button).click()
            seen.append(point)

        for _ in range(5):
            answer()
        bridge.wait_for(lambda: len(tasks()) > QUEUE)  # asked again before the queue was empty
        bridge.kill()
        answer()
        answer(SKIP)
        bridge.start()
        for _ in range(6):
            answer()
        bridge.wait_for(lambda: len(tasks()) > QUEUE + QUEUE // 2)
        there = tasks()
        points = [task["meta"]["bbald"] for task in there]
        assert len(set(points)) == len(points), "imported twice"
        assert seen == points[: len(seen)], "in another order than asked"

        gone = there[0]["annotations"][0]["id"]
        assert http.delete(f"/api/annotations/{gone}/").status_code == 204
        path = tmp_path / "images.npy.labels.db"

        def labels() -> dict[int, int]:
            with bb.Session.open(path) as session:
                return dict(zip(*(part.tolist() for part in session.labelled), strict=True))

        answered = {*points[: len(seen)]} - {points[0], points[6]}
        bridge.wait_for(lambda: labels().keys() == answered)
        assert labels() == {point: truth[point] for point in answered}
        with bb.Session.open(path) as session:
            assert session.skipped.tolist() == [points[6]]
            assert points[0] in session.pending
            assert [event.index for event in session.events("ask")][:QUEUE] == points[:QUEUE]
        bridge.kill()
        personal = studio_server.personal_token(server)
        bridge.server = server._replace(token=personal)
        lines = bridge.log.read_text().count("in the queue")
        bridge.start()
        bridge.wait_for(lambda: bridge.log.read_text().count("in the queue") > lines)
        bridge.kill()
        assert server.token not in bridge.log.read_text()
        for file in tmp_path.glob("images.npy.labels.db*"):
            content = file.read_bytes()
            assert server.token.encode() not in content
            assert personal.encode() not in content
        browser.close()
