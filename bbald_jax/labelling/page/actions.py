"""What a page can ask for, by name, from the JSON of a request to that of the reply.

The same over HTTP (`server`) and through a notebook's messages (`widget`). Items are called by
their indices, never by a path or a name.
"""

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

from bbald_jax.labelling.page.desk import ConflictError, Desk
from bbald_jax.labelling.page.items import LONGEST_TEXT, Items
from bbald_jax.labelling.page.overview import overview
from bbald_jax.labelling.page.pictures import Picture

#: Names of people and classes that are typed into the page.
_LONGEST_NAME = 100
#: Characters of a text in a list of items.
_EXCERPT = 200
#: Items that are described in one request.
_MOST_ITEMS = 1_000

Actions = Mapping[str, Callable[[dict[str, Any]], Any]]


class Reply(NamedTuple):
    """What an action came to: a status as HTTP has them, and the content, as JSON has it."""

    status: int
    content: Any


def make_actions(desk: Desk, items: Items, *, name: str) -> Actions:
    """Everything that a page does, by name.

    Args:
      desk: hands out and takes in.
      items: what is labelled, N as in the session.
      name: of the person, until they say another; empty if they are to say it first.
    """

    def setup(_: dict[str, Any]) -> Any:
        return {**_classes(desk), "kind": items.kind, "name": name}

    def review(_: dict[str, Any]) -> Any:
        return overview(desk)

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

    return {
        "setup": setup,
        "overview": review,
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


def perform(actions: Actions, name: str, body: Any) -> Reply:
    """Do what a request says, and put what went wrong into the reply."""
    if not isinstance(body, dict):
        return refusal(400, "the body is no JSON object")
    if name not in actions:
        return refusal(404, f"there is no {name!r:.40}")
    try:
        return Reply(200, actions[name](body))
    except ConflictError as error:
        return refusal(409, str(error))
    except ValueError as error:
        return refusal(400, str(error))
    except (OSError, TimeoutError) as error:
        return refusal(503, str(error))


def refusal(status: int, what: str) -> Reply:
    """A reply that says why not."""
    return Reply(status, {"error": what})


def picture_of(items: Items, index: Any) -> Picture | Reply:
    """An image's content and media type, or why it cannot be shown."""
    is_index = isinstance(index, int) and not isinstance(index, bool)
    if not is_index or not 0 <= index < len(items):
        return refusal(404, "no such item")
    try:
        return items.picture(index)
    except Exception as error:  # damaged bytes: what Pillow raises has no common class
        return refusal(404, f"item {index} cannot be shown ({type(error).__name__})")


def static_text(name: str) -> str:
    """One of the page's own files."""
    folder = resources.files("bbald_jax.labelling.page") / "static"
    return (folder / name).read_text(encoding="utf-8")


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
