"""What `bbald label-studio` does: a session, a project, and the bridge between them."""

from pathlib import Path
from typing import Any

import click

from bbald_jax.cli.console import Refused, printable
from bbald_jax.cli.options import class_names
from bbald_jax.labelling.label_studio.bridge import Bridge, Project
from bbald_jax.labelling.label_studio.client import LabelStudio
from bbald_jax.labelling.label_studio.control import check_control, read_control
from bbald_jax.labelling.label_studio.link import find_or_create, join, last_link
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.opening import (
    default_session,
    feature_maker,
    open_session,
)

_WHICH = "--project: which, at this --url? give its number, or --create TITLE to make one"


def label_studio(
    data: Path,
    url: str,
    project: int | None,
    create: str | None,
    token: str | None,
    classes: str | None,
    session: Path | None,
    column: str | None,
    array: str | None,
    features: str | None,
    queue: int,
    interval: float,
    measure: bool,
    target_accuracy: float | None,
    seed: int,
) -> None:
    """Make rounds until everything is answered, or Ctrl-C; the options are explained in `main`."""
    if not token:
        raise Refused(
            "--token: none; set LABEL_STUDIO_TOKEN to one from Label Studio's Account & Settings"
        )
    if project is not None and create is not None:
        raise Refused("--project, --create: two projects; give one of them")
    try:
        client = LabelStudio(url, token)
        if client.is_readable_by_others:
            _say(
                "warning: nothing is encrypted on the way to this --url; others may read the token"
            )
        path = session or default_session(data)
        if project is None and create is None and not path.exists():
            raise ValueError(_WHICH)
        named = class_names(classes)
        if project is not None:
            named = _classes_of(client.project(project), path, named)
        there, items, num_new = open_session(
            path, data, named, column=column, array=array, seed=seed
        )
        make = feature_maker(items, features, seed=there.seed, session=path)
        if num_new:
            _say(f"{num_new:,} new images")
        link = last_link(there)
        names = there.classes or ()
        if create is not None:
            number, is_new = find_or_create(client, link, create, names, items.kind)
            _say(f"{'made' if is_new else 'found'} project {number}, {create!r}")
        else:
            number = project or (link.project if link.url == client.url else None)
        if number is None:
            raise ValueError(_WHICH)
        found = client.project(number)
        control = read_control(found["label_config"])
        check_control(control, names, items.kind)
        _warn(found)
        join(there, link, client.url, number)
        learning = Learning(there, make, batch_size=queue, target=target_accuracy)
        bridge = Bridge(
            there,
            learning,
            items,
            client,
            Project(number, control, link.key),
            queue=queue,
            measure=measure,
            say=_say,
        )
        _say(f"{len(items):,} items, {len(there.labelled.indices):,} labelled, in {path}")
        _say(f"label at: {client.url}/projects/{number}/data, by its button 'Label All Tasks'")
        _say("Ctrl-C ends it; every answer is kept, and the same command goes on")
        learning.start()
        bridge.run(interval)
        _say(f"every item is answered. The labels: bbald export {path} --output labels.csv")
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from error


def _classes_of(project: dict[str, Any], path: Path, named: list[str]) -> list[str]:
    """The classes of a new session: those named, which must be the project's, or the project's."""
    if path.exists():
        return named  # it has its own: they are compared later
    control = read_control(project["label_config"])
    if named:
        check_control(control, named)
    return named or [*control.choices]


def _warn(project: dict[str, Any]) -> None:
    """Say what of the project's settings is not as a new one has it."""
    if project.get("sampling") != "Sequential sampling":
        _say(
            f"warning: the project's sampling is {project.get('sampling')!r}: people do not get "
            "the tasks in the order in which they are asked; choose Sequential in its settings"
        )


def _say(line: str) -> None:
    click.echo("\n".join(printable(part) for part in line.splitlines()))
