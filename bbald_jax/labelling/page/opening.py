"""The session about given data: a new one, or the one that is there, brought up to the data."""

from collections.abc import Callable, Sequence
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bbald_jax.experiment.feature_files import KINDS, load_or_make
from bbald_jax.labelling.page.items import ImageArray, Items, Texts, open_items
from bbald_jax.labelling.page.sources import SOURCE, Source, last_source
from bbald_jax.labelling.session import Session

#: A folder or file, or what is in memory.
Data = Path | Texts | ImageArray


class Opened(NamedTuple):
    """A session and what it is about.

    Attributes:
      session: new, or as it was left.
      items: in the session's order.
      num_new: images that have come into the folder since.
    """

    session: Session
    items: Items
    num_new: int


def default_session(data: Path) -> Path:
    """Beside DATA."""
    data = Path(data).absolute()
    return data.with_name(f"{data.name}.labels.db")


def user_name() -> str:
    """Who labels on this machine, until they say another name."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "me"


def open_session(
    path: Path,
    data: Data,
    classes: Sequence[str],
    *,
    column: str | None = None,
    array: str | None = None,
    seed: int = 0,
) -> Opened:
    """Begin a session, or go on with it.

    Args:
      path: its file, there or not.
      data: what is labelled.
      classes: their names; those that a session lacks are added to it.
      column: of texts, as in `open_items`,
      array: and likewise; by default what the session was begun with.
      seed: of a new session.

    Raises:
      ValueError: no classes for a new session, or a session about other data.
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
        items, num_new = _known_items(session, data, column, array, source)
        if new := [name for name in classes if name not in session.classes]:
            session.add_classes(new)
    else:
        items = open_items(data, column=column, array=array) if isinstance(data, Path) else data
        if not classes:
            raise ValueError(
                "--classes: name at least one, such as cat and dog; more can be added on the page"
            )
        session = Session.create(
            path, num_points=len(items), ids=items.names, classes=[*classes], seed=seed
        )
        source = None
    place = str(data.absolute()) if isinstance(data, Path) else ""
    here = Source(place, column, array, items.digest)
    if here != source:
        session.record(SOURCE, extra=here._asdict())
    return Opened(session, items, num_new)


def feature_maker(
    items: Items, features: Any, *, seed: int, session: Path
) -> Callable[[], np.ndarray]:
    """What makes the features, checked as far as that takes no time.

    Args:
      items: N of them.
      features: a name in `KINDS`, a .npy of rows, rows `[N, D]`; None for what suits the items.
      seed: of what is random in them.
      session: its file; features that take a while are kept beside it, so that the next start
        learns at once.

    Raises:
      ValueError: features that do not fit the items.
      OSError: the file cannot be read.
    """
    if features is None:
        features = "image+graph" if items.kind == "image" else "text"
    if isinstance(features, str) and features in KINDS:
        kind = features
        if (items.kind == "text") != (kind == "text"):
            raise ValueError(f"--features {kind}: not for a {items.kind}; give other features")

        def make() -> np.ndarray:
            raw = items.raw()
            kept = session.with_name(f"{session.name}.features")
            return load_or_make(kept, kind, raw, raw[:1], seed=seed)[0]

        return make
    rows, name = features, ""
    if isinstance(features, str | Path):
        name = f" {features}"
        rows = np.load(features, mmap_mode="r", allow_pickle=False)
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or len(rows) != len(items):
        raise ValueError(
            f"--features{name}: {rows.dtype} {rows.shape}, expected numbers [{len(items)}, D], a "
            "row for each item in their order, in a .npy file or an array"
        )
    return lambda: np.asarray(rows, np.float32)


def _known_items(
    session: Session, data: Data, column: str | None, array: str | None, source: Source | None
) -> tuple[Items, int]:
    """What DATA holds, in the session's order; images that are new come behind."""
    path, ids = session.path, session.ids
    has_names = ids.dtype.kind == "U"
    if isinstance(data, Path):
        names = ids.tolist() if has_names else None
        items, what = open_items(data, column=column, array=array, names=names), f"{data}"
    else:
        items, what = data, "the data"
    if (items.names is not None) != has_names:
        raise ValueError(f"{path}: a session about other data than {what}; give --session another")
    if items.names is None:
        is_same = source is None or source.digest == items.digest
        if len(items) != session.num_points or not is_same:
            raise ValueError(
                f"{what}: its {len(items):,} items are not the {session.num_points:,} that {path} "
                "was begun with; give them again, or --session another"
            )
    elif new := items.names[session.num_points :]:
        assert isinstance(data, Path)
        known = len(items.names) - len(new)
        if known and not any((data / name).exists() for name in items.names[:known]):
            raise ValueError(f"{path}: a session about other images than {data}; give that folder")
        session.add_points(ids=new)
        return items, len(new)
    return items, 0
