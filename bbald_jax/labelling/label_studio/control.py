"""The labelling interface of a project: what a new one has, and what one that is there must have.

It is XML. An object tag shows a field of the task (`<Image name="image" value="$image"/>`), and a
`<Choices>` control, whose `toName` is the object's name, has a `<Choice>` for each class.
"""

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

#: The object tag for each kind of items, and the field of a new project's tasks.
_OBJECTS = {"image": "Image", "text": "Text"}
# What Label Studio accepts.
_SHORTEST_TITLE, _LONGEST_TITLE = 3, 50


class Control(NamedTuple):
    """The `<Choices>` of a project.

    Attributes:
      name: what the answers call it.
      choices: the classes, as the answers call them.
      tag: the object's tag, such as "Image".
      field: the field of a task that the object shows.
    """

    name: str
    choices: tuple[str, ...]
    tag: str
    field: str


def read_control(label_config: str) -> Control:
    """The one control for classes of a project; others, for remarks and the like, are left alone.

    Raises:
      ValueError: it has none, or several, or one of another kind; the message says what to mend.
    """
    try:
        root = ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        raise ValueError(f"{_WHERE}: no XML ({error}); mend it there, or use --create") from error
    found = list(root.iter("Choices"))
    if len(found) != 1:
        raise ValueError(
            f"{_WHERE}: {len(found)} <Choices> controls; leave one there, whose choices are the "
            "classes, or use --create"
        )
    (control,) = found
    if control.get("choice", "single") not in ("single", "single-radio"):
        raise ValueError(
            f'{_WHERE}: <Choices choice="{control.get("choice")}">; make it choice="single", an '
            "item has one class"
        )
    choices = tuple(
        name
        for choice in control.iter("Choice")
        if (name := choice.get("alias") or choice.get("value"))
    )
    if not choices or control.get("value"):
        raise ValueError(
            f'{_WHERE}: no <Choice value="..."> in <Choices>; write one for each class'
        )
    shown = [tag for tag in root.iter() if tag.get("name") == control.get("toName")]
    value = shown[0].get("value", "") if len(shown) == 1 else ""
    if not value.startswith("$") or len(value) < 2:
        raise ValueError(
            f'{_WHERE}: toName="{control.get("toName")}" of <Choices> names no tag with a '
            'value="$field"; let it be the name of the <Image> or <Text>'
        )
    if shown[0].get("valueType") == "url" and shown[0].tag == "Text":
        raise ValueError(f'{_WHERE}: <Text valueType="url">; make it valueType="text"')
    return Control(control.get("name", ""), choices, shown[0].tag, value[1:])


def check_control(control: Control, classes: Sequence[str], kind: str | None = None) -> None:
    """Refuse an interface that cannot say what the session is about.

    Args:
      control: of the project.
      classes: of the session.
      kind: of its items, "image" or "text"; None if it is not known yet.

    Raises:
      ValueError: other classes, or an object of another kind; the message says what to mend.
    """
    if missing := [name for name in classes if name not in control.choices]:
        tags = "".join(f"<Choice value={quoteattr(name)}/>" for name in missing)
        raise ValueError(
            f"{_WHERE}: lacks the classes {', '.join(missing)}; write {tags} into <Choices> there"
        )
    if more := [name for name in control.choices if name not in classes]:
        raise ValueError(
            f"{_WHERE}: has the choices {', '.join(more)}, which are no classes of the session; "
            f"add them with --classes {','.join(more)}, or take them out there"
        )
    if kind is not None and control.tag != _OBJECTS[kind]:
        raise ValueError(
            f"{_WHERE}: shows <{control.tag}>, but the items are {kind}s; put "
            f'<{_OBJECTS[kind]} name="{kind}" value="${kind}"/> there, or use --create'
        )


def project_settings(title: str, description: str, classes: Sequence[str], kind: str) -> dict:
    """What a new project is created with.

    Raises:
      ValueError: a title that Label Studio does not accept, or a class that it would change.
    """
    if not _SHORTEST_TITLE <= len(title) <= _LONGEST_TITLE:
        raise ValueError(
            f"--create: a title has {_SHORTEST_TITLE} to {_LONGEST_TITLE} characters, not "
            f"{len(title)}"
        )
    for name in classes:
        if not name.isprintable():
            raise ValueError(f"--classes: {name!r} has characters that no project can have")
    choices = "".join(f"\n    <Choice value={quoteattr(name)}/>" for name in classes)
    # Texts could otherwise be taken for addresses, and images be too small to be seen.
    more = ' valueType="text"' if kind == "text" else ' zoom="true"'
    config = (
        f'<View>\n  <{_OBJECTS[kind]} name="{kind}" value="${kind}"{more}/>\n'
        f'  <Choices name="class" toName="{kind}" choice="single" required="true" '
        f'showInline="true">{choices}\n  </Choices>\n</View>'
    )
    return {
        "title": title,
        "description": description,
        "label_config": config,
        "sampling": "Sequential sampling",  # in the order in which they are asked
        "maximum_annotations": 1,
        "show_collab_predictions": False,
        "skip_queue": "IGNORE_SKIPPED",  # who skips has answered: nobody is asked again
        "show_skip_button": True,
        "enable_empty_annotation": False,
    }


_WHERE = "the project's labelling interface"
