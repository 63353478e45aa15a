"""The web application: the page's files, the items, and one address for each of the `actions`."""

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bbald_jax.labelling.page.actions import (
    Actions,
    Reply,
    make_actions,
    perform,
    picture_of,
    static_text,
)
from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.items import Items
from bbald_jax.labelling.page.security import Application, Guard

_STATIC = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/labeller.js": ("labeller.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# What changes nothing is a GET.
_READING = ("setup", "overview")


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
    actions = make_actions(desk, items, name=name)

    def read(what: str) -> Callable[[Request], Response]:
        return lambda _: _answer(perform(actions, what, {}))

    def picture(request: Request) -> Response:
        found = picture_of(items, request.path_params["index"])
        if isinstance(found, Reply):
            return _answer(found)
        content, media_type = found
        headers = {"cache-control": "private, max-age=3600"}
        return Response(content, media_type=media_type, headers=headers)

    routes = [Route(path, _file(*file)) for path, file in _STATIC.items()]
    routes += [
        *(Route(f"/api/{name}", read(name)) for name in _READING),
        Route("/items/{index:int}", picture),
        *(
            Route(f"/api/{name}", _posted(actions, name), methods=["POST"])
            for name in actions.keys() - {*_READING}
        ),
    ]
    return Guard(Starlette(routes=routes), token=token, host=host, port=port)


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    """One of the page's own files, read once."""
    content = static_text(name)
    if name == "index.html":
        content = content.replace("<!-- labeller.html -->", static_text("labeller.html"))
    return lambda _: Response(content, media_type=media_type)


def _posted(actions: Actions, what: str) -> Callable[[Request], Any]:
    """A thing that a person does, from the JSON of a request to that of the reply."""

    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            body = None
        return _answer(await run_in_threadpool(perform, actions, what, body))

    return endpoint


def _answer(reply: Reply) -> Response:
    return JSONResponse(reply.content, status_code=reply.status)
