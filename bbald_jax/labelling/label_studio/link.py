"""Which project a session belongs to, kept in the session, and that only one is made for it."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from bbald_jax.labelling.label_studio.client import LabelStudio
from bbald_jax.labelling.label_studio.control import project_settings
from bbald_jax.labelling.session import Session

#: The kind of the event.
LINK = "label_studio"


class Link(NamedTuple):
    """Where a session's tasks are.

    Attributes:
      key: of the session: its tasks and its project bear it.
      url: of the server; empty before there is one.
      project: its number there; None before there is one.
    """

    key: str
    url: str = ""
    project: int | None = None


def last_link(session: Session) -> Link:
    """Where the tasks were the last time; a new session is given its key."""
    if events := list(session.events(LINK)):
        return Link(**events[-1].extra)
    link = Link(secrets.token_hex(8))
    session.record(LINK, extra=link._asdict())
    return link


def join(session: Session, link: Link, url: str, project: int) -> Link:
    """Write down where the tasks are from now on."""
    now = Link(link.key, url, project)
    if now != link:
        session.record(LINK, extra=now._asdict())
    return now


def find_or_create(
    client: LabelStudio, link: Link, title: str, classes: Sequence[str], kind: str
) -> tuple[int, bool]:
    """The project of this title that was made for the session, or a new one.

    It is known by the session's key in its description: where the answer to its creation was lost,
    it is found.

    Returns:
      Its number, and whether it is new.

    Raises:
      ValueError: a title that Label Studio does not accept, or another refusal.
    """
    description = f"Made by bbald label-studio, session {link.key}"
    settings = project_settings(title, description, classes, kind)
    for project in client.projects():
        if project["title"] == title and link.key in (project["description"] or ""):
            return project["id"], False
    return client.create_project(settings)["id"], True
