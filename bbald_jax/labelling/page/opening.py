"""A session about what is in a folder or file, and its features: what every labeller opens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bbald_jax.experiment.feature_files import KINDS, load_or_make
from bbald_jax.labelling.page.items import Items, open_items
from bbald_jax.labelling.page.sources import SOURCE, Source, last_source
from bbald_jax.labelling.session import Session


def default_session(data: Path) -> Path:
    """Beside DATA."""
    data = Path(data).absolute()
    return data.with_name(f"{data.name}.labels.db")


class Opened(NamedTuple):
    """A session and what it is about, N each.

    Attributes:
      session: with the items that are new in the folder.
      items: in its order.
      num_new: how many those were.
    """

    session: Session
    items: Items
    num_new: int


def class_names(listed: str | None) -> list[str]:
    """The names in a list such as "cat, dog"."""
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def open_session(
    path: Path, data: Path, named: list[str], column: str | None, array: str | None, seed: int
) -> Opened:
    """The session that is there, brought up to the data; or a new one.

    Args:
      path: of the session's file.
      data: what is labelled, as in `open_items`.
      named: classes of a new session; on one that is there, those that it lacks are added.
      column: as in `open_items`; by default what it was the last time,
      array: and likewise.
      seed: of a new session.

    Raises:
      ValueError: a session about other data, or no class for a new one.
      OSError: something cannot be read or written.
    """
    num_new = 0
    if path.exists() and path.stat().st_size:
        session = Session.open(path)
        if session.classes is None:
            raise ValueError(f"{path}: its classes have no names; give --session another file")
        source = last_source(session)
        if source is not None:
            column, array = column or source.column, array or source.array
        known = session.num_points
        items = _known_items(session, path, data, column, array, source)
        num_new = session.num_points - known
        if new := [name for name in named if name not in session.classes]:
            session.add_classes(new)
    else:
        items = open_items(data, column=column, array=array)
        if not named:
            raise ValueError(
                "--classes: name at least one, such as --classes cat,dog; more can be added on "
                "the page"
            )
        session = Session.create(
            path, num_points=len(items), ids=items.names, classes=named, seed=seed
        )
        source = None
    here = Source(str(data.absolute()), column, array, items.digest)
    if here != source:
        session.record(SOURCE, extra=here._asdict())
    return Opened(session, items, num_new)


def _known_items(
    session: Session,
    path: Path,
    data: Path,
    column: str | None,
    array: str | None,
    source: Source | None,
) -> Items:
    """What DATA holds, in the session's order; images that are new come behind."""
    ids = session.ids
    has_names = ids.dtype.kind == "U"
    items = open_items(data, column=column, array=array, names=ids.tolist() if has_names else None)
    if (items.names is not None) != has_names:
        raise ValueError(f"{path}: a session about other data than {data}; give --session another")
    if items.names is None:
        is_same = source is None or source.digest == items.digest
        if len(items) != session.num_points or not is_same:
            raise ValueError(
                f"{data}: its {len(items):,} items are not the {session.num_points:,} that "
                f"{path} was begun with; give that file again, or --session another"
            )
    elif new := items.names[session.num_points :]:
        known = len(items.names) - len(new)
        if known and not any((data / name).exists() for name in items.names[:known]):
            raise ValueError(f"{path}: a session about other images than {data}; give that folder")
        session.add_points(ids=new)
    return items


def feature_maker(
    items: Items, features: str | None, seed: int, session: Path
) -> Callable[[], np.ndarray]:
    """What makes the features, checked as far as that takes no time.

    Those that take a while are kept beside the session: the next start learns at once.

    Args:
      items: N of them.
      features: their kind, or a .npy of rows; by default what suits them.
      seed: of what is random in them.
      session: its file.

    Returns:
      A function that gives `[N, D]`.

    Raises:
      ValueError: features that do not fit the items.
      OSError: a file that cannot be read.
    """
    kept = session.with_name(f"{session.name}.features")
    if features is None:
        features = "image+graph" if items.kind == "image" else "text"
    if features in KINDS:
        if (items.kind == "text") != (features == "text"):
            raise ValueError(f"--features {features}: not for a {items.kind}; give other features")

        def make() -> np.ndarray:
            raw = items.raw()
            return load_or_make(kept, features, raw, raw[:1], seed=seed)[0]

        return make
    rows: Any = np.load(features, mmap_mode="r", allow_pickle=False)
    if getattr(rows, "ndim", 0) != 2 or rows.dtype.kind not in "fiu" or len(rows) != len(items):
        raise ValueError(
            f"--features {features}: {getattr(rows, 'shape', 'no array')}, expected a .npy of "
            f"numbers [{len(items)}, D], a row for each item in their order"
        )
    return lambda: np.asarray(rows, np.float32)
