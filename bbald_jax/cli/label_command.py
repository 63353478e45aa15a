"""What `bbald label` does: a session, its items, what learns, and the page in a browser."""

import secrets
import socket
import threading
import webbrowser
from pathlib import Path

import click
import uvicorn

from bbald_jax.cli.console import Refused
from bbald_jax.cli.options import class_names
from bbald_jax.labelling.page.desk import Desk
from bbald_jax.labelling.page.learning import Learning
from bbald_jax.labelling.page.opening import default_session, feature_maker, open_session, user_name
from bbald_jax.labelling.page.server import make_application

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
        named = class_names(classes)
        there, items, num_new = open_session(
            path, data, named, column=column, array=array, seed=seed
        )
        make = feature_maker(items, features, seed=there.seed, session=path)
        listener = _listen(host, port)
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from error
    bound: int = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    learning = Learning(there, make, batch_size=batch_size, target=target_accuracy)
    desk = Desk(there, learning, overlap=overlap, timeout=timeout)
    is_local = host in ("127.0.0.1", "localhost", "::1")
    app = make_application(
        desk, items, token=token, host=host, port=bound, name=user_name() if is_local else ""
    )
    shown = _shown_host(host)
    address = f"http://{shown}:{bound}/?token={token}"
    if num_new:
        _say(f"{num_new:,} new images")
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


def _say(text: str) -> None:
    click.echo(text)


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
