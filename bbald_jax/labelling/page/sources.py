"""Where a session's items come from, kept in the session: the export finds images by it."""

from typing import NamedTuple

from bbald_jax.labelling.session import Session

#: The kind of the event.
SOURCE = "source"


class Source(NamedTuple):
    """What the labeller was told of the data.

    Attributes:
      data: the folder or file; empty for what was in memory.
      column: of texts; None where it is not needed.
      array: of a .npz; likewise.
      digest: of what has no names, see `Items`.
    """

    data: str
    column: str | None
    array: str | None
    digest: str


def last_source(session: Session) -> Source | None:
    """Where the items came from the last time; None where no page was opened yet."""
    events = list(session.events(SOURCE))
    return Source(**events[-1].extra) if events else None
