"""The page's application: what it lets in, what it refuses, and that text stays text."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

pytest.importorskip("starlette", reason="needs the extra label")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")
from starlette.testclient import TestClient

from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.handing import IN_HAND
from bbald_jax.labelling.page.items import ImageArray, Texts
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.security import MOST_BYTES
from bbald_jax.labelling.page.server import make_application

TOKEN, PORT = "secret-token", 8765
HOME = f"http://127.0.0.1:{PORT}"
NASTY = '<img src=x onerror="alert(1)"></script>'


def make_client(texts: list[str] | None = None, host: str = "127.0.0.1", **settings: Any):
    """A browser that has not been let in yet, at an application of its own."""
    texts = texts or [f"text {number}" for number in range(12)]
    session = bb.Session(len(texts), classes=["cat", "dog"])
    desk = Desk(session, Learning(session, lambda: np.zeros((0, 0))), **settings)
    app = make_application(desk, Texts(texts), token=TOKEN, host=host, port=PORT, name="anna")
    client = TestClient(app, base_url=HOME, follow_redirects=False)
    client.headers["origin"] = HOME
    return client, desk


@pytest.fixture
def client() -> Iterator[TestClient]:
    client, _ = make_client()
    assert client.get(f"/?token={TOKEN}").status_code == 303
    yield client


def post(client: TestClient, what: str, expected: int = 200, **body: Any) -> Any:
    reply = client.post(f"/api/{what}", json={"annotator": "anna", **body})
    assert reply.status_code == expected, reply.text
    return reply.json()


def test_a_token_becomes_a_cookie_that_scripts_cannot_read():
    client, _ = make_client()
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert not client.cookies
    reply = client.get(f"/?token={TOKEN}")
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    name, *attributes = reply.headers["set-cookie"].split("; ")
    assert name == f"bbald_{PORT}={TOKEN}"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} == set(attributes)
    assert "bbald label" in client.get("/").text


@pytest.mark.parametrize(
    "path", ["/page.js", "/labeller.js", "/page.css", "/api/setup", "/api/overview", "/items/0"]
)
def test_without_the_cookie_nothing_is_served(path: str):
    client, _ = make_client()
    assert client.get(path).status_code == 403
    client.cookies.set(f"bbald_{PORT}", TOKEN + "x")
    assert client.get(path).status_code == 403
    client.cookies.clear()
    client.cookies.set(f"bbald_{PORT + 1}", TOKEN)
    assert client.get(path).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example:8765", "127.0.0.1:8766", "127.0.0.1", "127.0.0.1.evil.example:8765", ""]
)
def test_another_name_for_this_server_is_refused(client: TestClient, host: str):
    assert client.get("/", headers={"host": host}).status_code == 400
    assert client.get(f"/?token={TOKEN}", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("192.168.1.7:8765", True), ("[fe80::1]:8765", True), ("a.example:8765", False)],
)
def test_everywhere_is_numbers_and_the_machines_own_name(host: str, allowed: bool):
    client, _ = make_client(host="0.0.0.0")
    status = client.get(f"/?token={TOKEN}", headers={"host": host}).status_code
    assert status == (303 if allowed else 400)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8766", None])
def test_a_post_from_another_site_changes_nothing(origin: str | None):
    client, desk = make_client()
    client.get(f"/?token={TOKEN}")
    del client.headers["origin"]
    headers = {} if origin is None else {"origin": origin}
    reply = client.post("/api/begin", json={"annotator": "anna"}, headers=headers)
    assert reply.status_code == 403
    assert not desk.session.in_hand


def test_a_request_that_the_browser_calls_cross_site_is_refused(client: TestClient):
    headers = {"sec-fetch-site": "cross-site"}
    assert client.get("/items/0", headers=headers).status_code == 403
    assert client.post("/api/begin", json={}, headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code == 200  # a link from elsewhere


def test_a_form_is_refused(client: TestClient):
    assert client.post("/api/begin", data={"annotator": "anna"}).status_code == 415
    text = client.post(
        "/api/begin", content='{"annotator": "anna"}', headers={"content-type": "text/plain"}
    )
    assert text.status_code == 415


def test_a_large_body_is_refused_however_it_is_sent(client: TestClient):
    json = {"content-type": "application/json"}
    body = b'"' + b"a" * MOST_BYTES + b'"'
    assert client.post("/api/begin", content=body, headers=json).status_code == 413
    parts = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    assert client.post("/api/begin", content=parts, headers=json).status_code == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'"a"', b"\xff", b"[" * 60_000, b'{"annotator": 1}', b'{"annotator": ""}'],
)
def test_what_is_no_object_with_a_name_is_refused(client: TestClient, body: bytes):
    headers = {"content-type": "application/json"}
    assert client.post("/api/begin", content=body, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/items/../secret",
        "/items/%2e%2e%2fsecret",
        "/items/-1",
        "/items/12",
        "/items/a.png",
        "/../pyproject.toml",
        "/static/../server.py",
    ],
)
def test_items_are_indices_and_no_paths(client: TestClient, path: str):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("answer", {"index": 12, "label": 0}),
        ("answer", {"index": -1, "label": 0}),
        ("answer", {"index": True, "label": 0}),
        ("answer", {"index": "0", "label": 0}),
        ("answer", {"index": 0, "label": 2}),
        ("answer", {"index": 0, "label": 0.5}),
        ("answer", {"index": 0}),
        ("answer", {"index": 0, "label": 0, "annotator": "a\0b"}),
        ("answer", {"index": 0, "label": 0, "annotator": "a" * 101}),
        ("skip", {"index": 12}),
        ("unsure", {"index": None}),
        ("correct", {"index": 0, "label": -1}),
        ("add-class", {"name": " "}),
        ("add-class", {"name": "cat"}),
        ("items", {"items": "0"}),
        ("items", {"items": [12]}),
        ("items", {"items": [0] * 1001}),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_happens(what: str, body: dict[str, Any]):
    client, desk = make_client()
    client.get(f"/?token={TOKEN}")
    assert post(client, what, 400, **body)["error"]
    assert [event.kind for event in desk.session.history] == ["create"]


def test_every_reply_has_the_strict_policy(client: TestClient):
    for reply in (
        client.get("/"),
        client.get("/page.js"),
        client.get("/nothing"),
        client.get("/api/setup"),
    ):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
    page = client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in page.replace(" once", "").replace(" one", "").replace(" on ", "")


def test_the_pages_script_never_makes_html_of_text():
    static = Path(bb.__file__).parent / "labelling/page/static"
    script = "".join((static / name).read_text() for name in ("labeller.js", "page.js"))
    for risky in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "DOMParser",
    ):
        assert risky not in script
    assert "://" not in script.replace("http://www.w3.org/2000/svg", "")


def test_texts_and_names_come_as_json_as_they_are():
    client, _ = make_client([NASTY, "\ud800", "x" * 30_000])
    client.get(f"/?token={TOKEN}")
    post(client, "add-class", name=NASTY, annotator=NASTY)
    reply = client.post("/api/begin", json={"annotator": NASTY})
    assert reply.headers["content-type"] == "application/json"
    texts = {item["index"]: item["text"] for item in reply.json()["items"]}
    assert texts[0] == NASTY
    assert texts[1] == "?"
    assert texts[2].endswith("(10,000 characters more)")
    assert NASTY in reply.json()["classes"]


def test_a_day_of_labelling(client: TestClient):
    first = post(client, "begin")
    assert len(first["items"]) == IN_HAND
    one, two, three = (item["index"] for item in first["items"])
    after = post(client, "answer", index=one, label=1)
    assert [item["index"] for item in after["items"]][:2] == [two, three]
    assert after["progress"]["labelled"] == 1
    assert after["progress"]["can_undo"]
    assert post(client, "undo")["items"][0]["index"] == one
    post(client, "answer", index=one, label=0)
    assert post(client, "skip", index=two)["progress"]["skipped"] == 1
    assert post(client, "unsure", index=three)["progress"]["unsure"] == 1
    seen = client.get("/api/overview").json()
    assert [each["labelled"] for each in seen["classes"]] == [1, 0]
    assert seen["unsure"] == [{"index": three}]
    post(client, "correct", index=three, label=1)
    post(client, "correct", index=two, label=1)
    seen = client.get("/api/overview").json()
    assert [each["labelled"] for each in seen["classes"]] == [1, 2]
    assert not seen["unsure"]


def test_an_answer_that_is_sent_twice_counts_once(client: TestClient):
    index = post(client, "begin")["items"][0]["index"]
    post(client, "answer", index=index, label=1)
    assert post(client, "answer", index=index, label=1)["progress"]["labelled"] == 1
    assert "another label" in post(client, "answer", 409, index=index, label=0)["error"]


def test_undo_of_nothing_is_a_conflict(client: TestClient):
    assert post(client, "undo", 409)["error"] == "there is nothing to undo"


def test_many_requests_at_once_give_nobody_what_another_has():
    client, desk = make_client([f"text {number}" for number in range(60)])
    client.get(f"/?token={TOKEN}")

    def work(who: str) -> None:
        for _ in range(8):
            held = client.post("/api/begin", json={"annotator": who}).json()["items"]
            body = {"annotator": who, "index": held[0]["index"], "label": 0}
            assert client.post("/api/answer", json=body).status_code == 200

    threads = [threading.Thread(target=work, args=(who,)) for who in ("anna", "ben", "cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handed = [event.index for event in desk.session.events("ask")]
    assert len(desk.session.labelled.indices) == 24
    assert len(handed) == len(set(handed))


def test_an_array_of_images_is_served_as_png():
    images = np.linspace(0, 1, 4 * 5 * 6).reshape(4, 5, 6)
    session = bb.Session(4, classes=["cat"])
    desk = Desk(session, Learning(session, lambda: np.zeros((0, 0))))
    app = make_application(desk, ImageArray(images), token=TOKEN, host="127.0.0.1", port=PORT)
    client = TestClient(app, base_url=HOME)
    client.get(f"/?token={TOKEN}")
    reply = client.get("/items/3")
    assert reply.headers["content-type"] == "image/png"
    assert reply.content.startswith(b"\x89PNG")
    assert client.get("/items/4").status_code == 404
