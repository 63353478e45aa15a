"""A real Label Studio: installs it, starts it on loopback, and records what it answers.

    python tests/studio_server.py record FOLDER tests/studio_answers.json

FOLDER holds its own environment (1 GB, some minutes to install) and its data; what is there already
is used. The tests that need no server replay `studio_answers.json` (`studio_replay`).
"""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

USER, PASSWORD = "anna@example.com", "correct horse battery"
SETTINGS = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}


class Running(NamedTuple):
    """A server: where it is, and the token of its user."""

    url: str
    token: str


def install(folder: Path) -> Path:
    """Its executable, installed if it is not there."""
    program = folder / "venv" / "bin" / "label-studio"
    if not program.exists():
        venv.create(folder / "venv", with_pip=True)
        pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "label-studio"], check=True)
    return program


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """A server with empty data, until the end."""
    program = install(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = folder / f"data-{port}-{secrets.token_hex(4)}"
    place.mkdir()
    server = Running(f"http://127.0.0.1:{port}", secrets.token_hex(20))
    command = [str(program), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(place)]
    command += ["--username", USER, "--password", PASSWORD, "--user-token", server.token]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {**SETTINGS, "HOME": str(place)}
    with open(place / "log.txt", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=place)
        try:
            _wait_for(server, process, place / "log.txt")
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(server: Running, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            headers = {"Authorization": f"Token {server.token}"}
            if httpx.get(f"{server.url}/api/projects", headers=headers).status_code == 200:
                return
        time.sleep(1)
    raise AssertionError(f"Label Studio did not start:\n{log.read_text()[-3000:]}")


def personal_token(server: Running) -> str:
    """A personal token, as the page of the account makes it."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as browser:
        browser.get("/user/login/")
        form = {"email": USER, "password": PASSWORD}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        browser.post("/user/login/", data=form)
        headers = {"X-CSRFToken": browser.cookies["csrftoken"]}
        return browser.post("/api/token", headers=headers).json()["token"]


def record(server: Running) -> dict[str, Any]:
    """Its answers to every call that the library makes, and to some that people's browsers make."""
    client = httpx.Client(
        base_url=server.url, headers={"Authorization": f"Token {server.token}"}, timeout=60
    )
    answers: dict[str, Any] = {}

    def call(name: str, method: str, path: str, **request: Any) -> Any:
        response = client.request(method, path, **request)
        body = response.json() if response.content else None
        answers[name] = {"status": response.status_code, "body": body}
        return body

    config = (
        '<View><Text name="text" value="$text" valueType="text"/><Choices name="class" '
        'toName="text" choice="single"><Choice value="cat"/><Choice value="dog"/></Choices></View>'
    )
    made = {"title": "Cats", "description": "of a session", "label_config": config}
    made |= {"sampling": "Sequential sampling", "skip_queue": "IGNORE_SKIPPED"}
    project = call("create", "POST", "/api/projects", json=made)["id"]
    call("short title", "POST", "/api/projects", json={"title": "x"})
    fields = {"include": "id,title,description", "page_size": 200}
    call("projects", "GET", "/api/projects", params={**fields, "page": 1})
    call("projects past the end", "GET", "/api/projects", params={**fields, "page": 9})
    call("no project", "GET", "/api/projects/999")
    tasks = [
        {"data": {"item": str(i), "text": f"text {i}"}, "meta": {"bbald": i, "session": "key"}}
        for i in (2, 0)
    ]
    where = f"/api/projects/{project}/import"
    numbers = call("import", "POST", where, params={"return_task_ids": "true"}, json=tasks)
    one, two = numbers["task_ids"]
    chosen: dict[str, Any] = {"from_name": "class", "to_name": "text", "type": "choices"}
    chosen["value"] = {"choices": ["dog"]}
    call("answer", "POST", f"/api/tasks/{one}/annotations/", json={"result": [chosen]})
    skip = {"result": [], "was_cancelled": True}
    call("skip", "POST", f"/api/tasks/{two}/annotations/", json=skip)
    include = "id,meta,annotations,drafts,result,completed_by,was_cancelled,updated_at"
    listing = {"project": project, "fields": "all", "include": include, "page_size": 200}
    call("tasks", "GET", "/api/tasks", params=listing)
    without = {k: v for k, v in listing.items() if k != "include"}
    call("tasks with all fields", "GET", "/api/tasks", params=without)
    call("tasks past the end", "GET", "/api/tasks", params={**listing, "page": 9})
    after = [{"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": two}]
    query = {"filters": {"conjunction": "and", "items": after}, "ordering": ["tasks:id"]}
    call("no tasks", "GET", "/api/tasks", params={**listing, "query": json.dumps(query)})
    call("one task", "GET", f"/api/tasks/{one}")
    call("project", "GET", f"/api/projects/{project}")
    call("delete", "DELETE", f"/api/tasks/{two}/")
    call("delete again", "DELETE", f"/api/tasks/{two}/")
    client.headers["Authorization"] = "Token wrong"
    call("wrong token", "GET", f"/api/projects/{project}")
    client.headers["Authorization"] = ""
    call("wrong personal token", "POST", "/api/token/refresh", json={"refresh": "a.b.c"})
    refresh = {"refresh": personal_token(server)}
    call("personal token", "POST", "/api/token/refresh", json=refresh)
    answers["personal token"]["body"]["access"] = "header.payload.signature"  # nobody's
    return answers


if __name__ == "__main__":
    _, _, where, output = sys.argv
    with running(Path(where).absolute()) as there:
        text = json.dumps(record(there), indent=1)
    Path(output).write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8080", text) + "\n")
