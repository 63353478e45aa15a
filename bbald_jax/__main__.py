"""`bbald` and `python -m bbald_jax`: the command line, or one line on what it lacks."""

import contextlib
import gc
import os
import shlex
import signal
import sys
import threading

#: The extra that brings each package which may be missing.
_EXTRAS = {
    **dict.fromkeys(("PIL", "click", "matplotlib", "orbax", "pooch", "rich"), "experiments"),
    **dict.fromkeys(("safetensors", "sklearn", "tqdm"), "experiments"),
    **dict.fromkeys(("faiss", "scipy", "skimage"), "features"),
    **dict.fromkeys(("starlette", "uvicorn"), "label"),
    "httpx": "label-studio",
    "pyarrow": "parquet",
}

_ENDING = threading.Lock()


def main() -> None:
    """Start the command line."""
    _end_at_interrupt()  # before anything is loaded: `import bbald_jax` has loaded nothing yet
    # What is imported stays. Looking through it for garbage, again and again, takes a tenth of the
    # time of a short command; `cli.main` turns it on again when all is there.
    gc.disable()
    try:
        from bbald_jax.cli.main import main as command_line

        command_line(prog_name="bbald")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        sys.exit(f'bbald: no module {error.name!r}; run: pip install "bbald_jax[{extra}]"')
    except OSError as error:  # of standard output; what befalls files, each command says itself
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python's last flush cannot fail
        sys.exit(f"bbald: standard output: {error.strerror or error}")


def _end_at_interrupt() -> None:
    """Let Ctrl-C end the process at once, whatever it is doing.

    What is finished is on disk, and a run that was killed continues, so that nothing is to be
    cleaned up but a file that is being written. A KeyboardInterrupt would come only after compiled
    code has returned (minutes, in a large fit), and is lost where it meets a callback.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background
        return
    # For before, and for when an event loop has put another descriptor in the place of ours.
    signal.signal(signal.SIGINT, lambda *_: _end())
    # Python's own handler writes the signal's number there at once, in whatever thread it comes.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    threading.Thread(target=_wait_for_interrupt, args=(reader,), daemon=True).start()


def _wait_for_interrupt(reader: int) -> None:
    while os.read(reader, 1) != bytes([signal.SIGINT]):
        pass
    _end()


def _end() -> None:
    if not _ENDING.acquire(blocking=False):
        return  # the handler and the thread both heard of it, and one of them ends the process
    with contextlib.suppress(Exception):  # nothing may keep us from ending
        # Where it is not loaded, nothing was written; and this is no time to load it.
        for path in tuple(sys.modules["bbald_jax.files"].unfinished):
            path.unlink(missing_ok=True)
    message = "\ninterrupted"
    if sys.argv[1:2] in (["label"], ["label-studio"]):
        message = "\nended; every answer is kept, and the same command goes on"
    if sys.argv[1:2] == ["run"]:
        command = shlex.join(["bbald", *sys.argv[1:]])
        message += f"; every finished round is kept. To continue: {command}"
    if os.isatty(2):
        message += "\x1b[?25h"  # the progress bar hides the cursor
    # Not print: the main thread may hold its lock.
    os.write(2, f"{message}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    main()
