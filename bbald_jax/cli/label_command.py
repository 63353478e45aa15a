"""What `bbald label` does: a session, its items, what learns, and the page in a browser."""

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from getpass import getuser
from pathlib import Path
from typing import Any

import click
import numpy as np
import uvicorn

from bbald_jax.cli.console import Refused
from bbald_jax.experiment.feature_files import KINDS, load_or_make
from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.items import Items, open_items
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.server import make_application
from bbald_jax.labelling.page.sources import SOURCE, Source, last_source
from bbald_jax.labelling.session import Session

#: Where `--port` says nothing: the first of these that is free.
PORTS = range(8765, 8775)
_EVERYWHERE = ("0.0.0.0", "::", "")


def label(
    data: Path,
    classes: str | None,
    session: Path | None,
    column: str | None,
    array: str | None,
    features: str | None,
    batch_size: int | None,
    overlap: float,
    timeout: float,
    target_accuracy: float | None,
    host: str,
    port: int | None,
    open_page: bool,
    seed: int,
) -> None:
    """Serve the page until Ctrl-C; the options are explained in `main`."""
    try:
        path = session or default_session(data)
        there, items = _session(path, data, classes, column, array, seed)
        make = _feature_maker(items, features, there.seed, path)
        listener = _listen(host, port)
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from error
    bound: int = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    learning = Learning(there, make, batch_size=batch_size, target=target_accuracy)
    desk = Desk(there, learning, overlap=overlap, timeout=timeout)
    is_local = host in ("127.0.0.1", "localhost", "::1")
    app = make_application(
        desk, items, token=token, host=host, port=bound, name=_user() if is_local else ""
    )
    shown = _shown_host(host)
    address = f"http://{shown}:{bound}/?token={token}"
    _say(f"{len(items):,} items, {len(there.labelled.indices):,} labelled, in {path}")
    if items.left_out:
        _say(f"left out: {len(items.left_out)} files that are no images")
    if not is_local:
        _say(
            f"warning: --host {host} lets every machine that reaches this one at port {bound} try; "
            "the token keeps out who does not know it, but nothing is encrypted: whoever listens "
            "on the network reads items, labels and the token"
        )
    _say(f"label at: {address}\nCtrl-C ends it; every answer is kept, and the same command goes on")
    config = uvicorn.Config(
        app,
        log_config=None,  # its own would close the handlers of whoever has called this
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
    )
    server = uvicorn.Server(config)
    learning.start()
    if open_page:
        threading.Timer(0.3, webbrowser.open, [address]).start()
    # Not in this thread, where uvicorn would take Ctrl-C over, and wait for open connections.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    thread.join()


def default_session(data: Path) -> Path:
    """Beside DATA."""
    data = Path(data).absolute()
    return data.with_name(f"{data.name}.labels.db")


def _say(text: str) -> None:
    click.echo(text)


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):
        return "me"


def _session(
    path: Path, data: Path, classes: str | None, column: str | None, array: str | None, seed: int
) -> tuple[Session, Items]:
    """The session that is there, brought up to the data; or a new one."""
    named = [name.strip() for name in (classes or "").split(",") if name.strip()]
    if path.exists() and path.stat().st_size:
        session = Session.open(path)
        if session.classes is None:
            raise ValueError(f"{path}: its classes have no names; give --session another file")
        source = last_source(session)
        if source is not None:
            column, array = column or source.column, array or source.array
        items = _known_items(session, path, data, column, array, source)
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
    return session, items


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
        _say(f"{len(new):,} new images")
    return items


def _feature_maker(
    items: Items, features: str | None, seed: int, session: Path
) -> Callable[[], np.ndarray]:
    """What makes the features, checked as far as that takes no time.

    Those that take a while are kept beside the session: the next start learns at once.
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


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens; uvicorn would say only later that the port is taken."""
    last: OSError | None = None
    for number in PORTS if port is None else (port,):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(100)
            return listener
        except OSError as error:
            listener.close()
            last = error
    what = f"port {port}" if port is not None else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise OSError(f"--host {host}, {what}: {last and last.strerror}; give another --port")


def _shown_host(host: str) -> str:
    """What stands in the address: a name that leads here."""
    if host in _EVERYWHERE:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
