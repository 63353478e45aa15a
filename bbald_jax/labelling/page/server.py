"""The web application: the page's files, the items, and one address for each thing a person does.

Everything is JSON. Items are called by their indices, never by a path or a name.
"""

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bbald_jax.labelling.page.desk import ConflictError, Desk
from bbald_jax.labelling.page.items import LONGEST_TEXT, Items
from bbald_jax.labelling.page.overview import overview
from bbald_jax.labelling.page.security import Application, Guard

_STATIC = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: Names of people and classes that are typed into the page.
_LONGEST_NAME = 100
#: Characters of a text in a list of items.
_EXCERPT = 200
#: Items that are described in one request.
_MOST_ITEMS = 1_000

Does = Callable[[dict[str, Any]], Any]


def make_application(
    desk: Desk,
    items: Items,
    *,
    token: str,
    host: str,
    port: int,
    name: str = "",
) -> Application:
    """The page as an ASGI application.

    Args:
      desk: hands out and takes in.
      items: what is labelled, N as in the session.
      token: lets people in.
      host: where the server listens,
      port: and at which port.
      name: of the person, until they say another; empty if they are to say it first.
    """

    def setup(_: Request) -> Response:
        return JSONResponse({**_classes(desk), "kind": items.kind, "name": name})

    def table(_: Request) -> Response:
        return JSONResponse(overview(desk))

    def picture(request: Request) -> Response:
        index = request.path_params["index"]
        if not 0 <= index < len(items):
            return _error(404, "no such item")
        try:
            content, media_type = items.picture(index)
        except Exception as error:  # damaged bytes: what Pillow raises has no common class
            return _error(404, f"item {index} cannot be shown ({type(error).__name__})")
        headers = {"cache-control": "private, max-age=3600"}
        return Response(content, media_type=media_type, headers=headers)

    def describe(body: dict[str, Any]) -> Any:
        asked = body.get("items")
        if not isinstance(asked, list) or len(asked) > _MOST_ITEMS:
            raise ValueError(f"items: a list of up to {_MOST_ITEMS:,} indices")
        points = [_index(point, len(items)) for point in asked]
        return {"items": [_item(items, point, _EXCERPT) for point in points]}

    def following(who: str, first: int | None = None) -> dict[str, Any]:
        """What a person has in hand, with all that their page shows around it."""
        points = desk.in_hand(who)
        if first in points:
            points = [first, *(point for point in points if point != first)]
        return {
            "items": [{**_item(items, point), "drawn": desk.is_drawn(point)} for point in points],
            "progress": desk.progress(who),
            **_classes(desk),
        }

    def begin(body: dict[str, Any]) -> Any:
        return following(_name(body, "annotator"))

    def rename(body: dict[str, Any]) -> Any:
        who, before = _name(body, "annotator"), _name(body, "before")
        if before != who:
            desk.leave(before)
        return following(who)

    def answer(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.answer(who, _index(body.get("index"), len(items)), _whole(body, "label"))
        return following(who)

    def progress(body: dict[str, Any]) -> Any:
        return desk.progress(_name(body, "annotator"))

    def skip(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.skip(who, _index(body.get("index"), len(items)))
        return following(who)

    def unsure(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.unsure(who, _index(body.get("index"), len(items)))
        return following(who)

    def undo(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        return following(who, first=desk.undo(who))

    def correct(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.correct(who, _index(body.get("index"), len(items)), _whole(body, "label"))
        return following(who)

    def add_class(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.add_class(_name(body, "name"))
        return following(who)

    def measure(body: dict[str, Any]) -> Any:
        who = _name(body, "annotator")
        desk.measure()
        return following(who)

    does = {
        "begin": begin,
        "rename": rename,
        "progress": progress,
        "answer": answer,
        "skip": skip,
        "unsure": unsure,
        "undo": undo,
        "correct": correct,
        "add-class": add_class,
        "items": describe,
        "measure": measure,
    }
    routes = [Route(path, _file(*file)) for path, file in _STATIC.items()]
    routes += [
        Route("/api/setup", setup),
        Route("/api/overview", table),
        Route("/items/{index:int}", picture),
        *(Route(f"/api/{name}", _posted(what), methods=["POST"]) for name, what in does.items()),
    ]
    return Guard(Starlette(routes=routes), token=token, host=host, port=port)


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    """One of the page's own files, read once."""
    folder = resources.files("bbald_jax.labelling.page") / "static"
    content = (folder / name).read_bytes()
    return lambda _: Response(content, media_type=media_type)


def _posted(what: Does) -> Callable[[Request], Any]:
    """A thing that a person does, from the JSON of a request to that of the reply."""

    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            if not isinstance(body, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            return _error(400, "the body is no JSON object")
        try:
            return JSONResponse(await run_in_threadpool(what, body))
        except ConflictError as error:
            return _error(409, str(error))
        except ValueError as error:
            return _error(400, str(error))
        except (OSError, TimeoutError) as error:
            return _error(503, str(error))

    return endpoint


def _error(status: int, what: str) -> Response:
    return JSONResponse({"error": what}, status_code=status)


def _classes(desk: Desk) -> dict[str, Any]:
    return {"classes": list(desk.session.classes or ())}


def _item(items: Items, point: int, longest: int = LONGEST_TEXT) -> dict[str, Any]:
    text = items.text(point)
    if len(text) > longest:
        text = f"{text[:longest]} … ({len(text) - longest:,} characters more)"
    # A lone surrogate, from a file name that is no UTF-8, has no place in JSON.
    return {"index": point, "text": text.encode("utf-8", "replace").decode()}


def _index(value: Any, num_points: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < num_points:
        raise ValueError("index: no such item")
    return value


def _whole(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name}: not a whole number")
    return value


def _name(body: dict[str, Any], field: str) -> str:
    """A name as it was typed, without spaces around it."""
    value = body.get(field)
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{field}: a name has 1 to {_LONGEST_NAME} characters")
    return name
