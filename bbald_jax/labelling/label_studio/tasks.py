"""Tasks: what is imported for a point, and what people said of those that are there."""

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bbald_jax.experiment.image_folders import FORMATS
from bbald_jax.extras import import_extra
from bbald_jax.labelling.page.items import Items
from bbald_jax.labelling.page.pictures import Picture

#: What a person is called in the session: this, and their number in Label Studio.
ANNOTATOR = "label-studio/"
# In a task's `meta`: the point, and the session it is of.
_POINT, _SESSION = "bbald", "session"
# Images below `_SMALL` pixels are enlarged to at least `_ENLARGED`: browsers blur what they scale.
_SMALL, _ENLARGED = 140, 280

#: What somebody says of a point: a class, or None where they skipped it.
Label = int | None


class Task(NamedTuple):
    """A task as the server has it.

    Attributes:
      number: its id.
      point: of this session; None if it came from elsewhere.
      annotations: as the server tells them.
      is_touched: somebody has answered it, or begun to.
    """

    number: int
    point: int | None
    annotations: list[dict[str, Any]]
    is_touched: bool

    @property
    def num_skipped(self) -> int:
        """How many of the annotations are skips."""
        return sum(bool(each["was_cancelled"]) for each in self.annotations)


class Read(NamedTuple):
    """What people say of a point.

    Attributes:
      labels: of each person, in the order in which they first said anything.
      unreadable: lines about what is no answer.
    """

    labels: dict[str, Label]
    unreadable: list[str]


def make_task(items: Items, point: int, field: str, key: str) -> dict[str, Any]:
    """What is imported for a point.

    Args:
      items: what is labelled.
      point: which of them.
      field: of the task that is shown.
      key: of the session.

    Raises:
      OSError, ValueError: the image cannot be read.
    """
    if items.kind == "image":
        content, media_type = enlarged(items.picture(point))
        shown = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    else:
        # A lone surrogate has no place in JSON.
        shown = items.text(point).encode("utf-8", "replace").decode()
    name = str(point if items.names is None else items.names[point])
    # Beside what is shown, so that Label Studio's own exports say which item it is.
    data = {"item": name.encode("utf-8", "replace").decode(), field: shown}
    return {"data": data, "meta": {_POINT: point, _SESSION: key}}


def enlarged(picture: Picture) -> Picture:
    """A small image with each pixel repeated; a larger one as it is."""
    pillow = import_extra("PIL.Image", extra="label-studio", user="an image for Label Studio")
    try:
        image = pillow.open(io.BytesIO(picture[0]), formats=FORMATS)
    except pillow.DecompressionBombError:  # large enough, then
        return picture
    with image:
        longest = max(image.size)
        if longest >= _SMALL or getattr(image, "is_animated", False):
            return picture
        factor = -(-_ENLARGED // longest)
        if image.mode == "P":  # of a palette, which may have a transparent colour
            image = image.convert("RGBA")
        large = image.resize([factor * side for side in image.size], pillow.Resampling.NEAREST)
        content = io.BytesIO()
        large.save(content, "PNG")
    return content.getvalue(), "image/png"


def read_task(task: Mapping[str, Any], key: str, num_points: int) -> Task:
    """A task of the server's list."""
    meta = task.get("meta") or {}
    point = meta.get(_POINT) if isinstance(meta, dict) and meta.get(_SESSION) == key else None
    if not isinstance(point, int) or not 0 <= point < num_points:
        point = None
    annotations = task["annotations"]
    return Task(task["id"], point, annotations, bool(annotations or task.get("drafts")))


def read_answers(
    annotations: Iterable[Mapping[str, Any]], control: str, classes: Mapping[str, int]
) -> Read:
    """What people say of a point, by the annotations of its tasks.

    Of several answers of one person the last holds; a label, though they skipped it once. An answer
    without a class is a skip.

    Args:
      annotations: as the server tells them.
      control: the name of the `<Choices>`.
      classes: their numbers, by name.
    """
    labels: dict[str, Label] = {}
    unreadable = []
    for annotation in sorted(annotations, key=lambda each: (each["updated_at"], each["id"])):
        who = annotator(annotation["completed_by"])
        chosen = [
            name
            for result in annotation["result"] or []
            if result.get("from_name") == control
            for name in result.get("value", {}).get("choices", [])
        ]
        if annotation["was_cancelled"] or not chosen:
            labels.setdefault(who, None)
        elif len(chosen) > 1:
            unreadable.append(f"annotation {annotation['id']}: {len(chosen)} classes at once")
        elif chosen[0] not in classes:
            unreadable.append(
                f"annotation {annotation['id']}: {chosen[0]!r} is no class of the session; end "
                f"this, and begin again with --classes {chosen[0]}"
            )
        else:
            labels[who] = classes[chosen[0]]
    return Read(labels, unreadable)


def annotator(completed_by: Any) -> str:
    """A person's name in the session; the server tells their number, or an object that has it."""
    number = completed_by.get("id") if isinstance(completed_by, dict) else completed_by
    return f"{ANNOTATOR}{'unknown' if number is None else number}"
