"""A command on several processes, machine by machine: joining, and what to do when one is lost.

JAX ends a process at once (`abort`, with a stack trace) when another one no longer answers, and
nothing in Python can keep it from that. So the command runs in a process of its own, and this one
watches over it: it passes on what it says, and of such an end it says one line.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

#: A process counts as lost after so many seconds without a sign of life.
HEARTBEAT_SECONDS = 10
#: The exit code of whoever lost another process: try again.
LOST = os.EX_TEMPFAIL

# In the environment of the process that does the work: the end of a pipe that closes with ours.
_WORKER = "BBALD_CLUSTER_WORKER"
_FATAL = re.compile(rb"F\d{4} .*distributed service detected fatal errors")
# What collectives raise whose other end is gone, by their words: it has no class of its own.
_BROKEN = re.compile(r"Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|[Hh]eartbeat|coordination service")


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that can use several devices and processes."""
    options = (
        click.option(
            "--devices",
            type=click.IntRange(min=1),
            show_default="all",
            help="Use at most so many devices (GPUs, TPUs) of each process; 1 is one only.",
        ),
        click.option(
            "--coordinator",
            metavar="HOST:PORT",
            help="Join a cluster: the same command is started on every machine, with the address "
            "of the first and a number for each. auto: what SLURM, GKE or a TPU pod says.",
        ),
        click.option(
            "--num-processes", type=click.IntRange(min=1), help="Processes of the cluster."
        ),
        click.option(
            "--process-id",
            type=click.IntRange(min=0),
            help="The number of this one, from 0 on; 0 is the coordinator, and writes the results.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def watch(
    coordinator: str | None, num_processes: int | None, process_id: int | None, after_loss: str
) -> None:
    """With a cluster named, run this command in a process of its own, and end as that one does.

    Args:
      coordinator: `HOST:PORT` of process 0, or "auto"; None for no cluster.
      num_processes: of the cluster; None with "auto".
      process_id: of this one; None with "auto".
      after_loss: what to do once a process was lost, the end of a line.

    Raises:
      click.UsageError: options that do not go together.
      SystemExit: the command is done.
    """
    _check(coordinator, num_processes, process_id)
    if coordinator is not None and _WORKER not in os.environ:
        sys.exit(_watch(after_loss))


@contextmanager
def joined(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    num_devices: int | None,
) -> Iterator[None]:
    """Within the cluster, if one is named; in the process that `watch` has started."""
    if coordinator is None:
        yield
        return
    _end_with_the_watcher(int(os.environ[_WORKER]))
    try:
        _join(coordinator, num_processes, process_id, num_devices)
        yield
        _leave()
    except BaseException as error:
        # JAX's own end of a process would wait for the others, minutes long; they see that we left.
        _end(error)


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    numbers = (num_processes, process_id)
    if coordinator in (None, "auto"):
        if numbers != (None, None):
            raise click.UsageError(
                "--num-processes and --process-id go with --coordinator HOST:PORT; give it, or "
                "leave them out"
            )
        return
    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise click.UsageError(
            f"--coordinator {coordinator}: not HOST:PORT, such as 10.0.0.1:1234, and not auto"
        )
    if num_processes is None or process_id is None:
        raise click.UsageError(
            "--coordinator HOST:PORT needs --num-processes and --process-id; give them, or take "
            "--coordinator auto"
        )
    if process_id >= num_processes:
        raise click.UsageError(
            f"--process-id {process_id}: {num_processes} processes have the numbers 0 to "
            f"{num_processes - 1}"
        )


def _join(
    coordinator: str, num_processes: int | None, process_id: int | None, num_devices: int | None
) -> None:
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from bbald_jax.experiment.processes import devices_in_use, from_first

    arguments: dict[str, Any] = {}
    if coordinator != "auto":
        arguments = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
        click.echo(
            f"process {process_id} of {num_processes}: waiting for all at {coordinator}", err=True
        )
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise click.ClickException(
            f"--coordinator {coordinator}: the cluster did not come together ({reason}); see that "
            "all processes are started, with one address, and that they can reach it"
        ) from error
    # Connections are made by the first exchange, which waits no longer than 30 seconds: now, when
    # all have just met. Gloo says so on standard output.
    with _without_stdout():
        devices = devices_in_use(num_devices)
        along = NamedSharding(Mesh(devices, ("device",)), PartitionSpec("device"))
        jnp.zeros(len(devices), device=along).sum().block_until_ready()
        from_first(lambda: None)
    me, count = jax.process_index(), jax.process_count()
    click.echo(f"process {me} of {count}: all are here, with {len(devices)} devices", err=True)
    if me != 0:
        _silence_stdout()


def _leave() -> None:
    import jax

    sys.stdout.flush()
    jax.distributed.shutdown()


def _end(error: BaseException) -> NoReturn:
    """End this process, and no other thread has a say in it."""
    code: int | str | None = 1
    if any(_is_loss(each) for each in (error, error.__cause__)):
        code = LOST
    elif isinstance(error, click.ClickException):
        error.show()
        code = error.exit_code
    elif isinstance(error, SystemExit):
        code = error.code
    elif not isinstance(error, BrokenPipeError):
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _is_loss(error: BaseException | None) -> bool:
    # ValueError too: on a CPU that is what an exchange raises.
    return isinstance(error, ValueError | RuntimeError) and bool(_BROKEN.search(str(error)))


@contextmanager
def _without_stdout() -> Iterator[None]:
    sys.stdout.flush()
    there = os.dup(1)
    _silence_stdout()
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C++ said may lie in a buffer still
        os.dup2(there, 1)
        os.close(there)


def _silence_stdout() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


# --- the process that watches


def _watch(after_loss: str) -> int:
    """Run this command in another process; its exit code."""
    reader, writer = os.pipe()
    # `writer` is never closed: the end of this process closes it, however it comes.
    os.set_inheritable(writer, False)
    environment = {**os.environ, _WORKER: str(reader)}
    # The same error would come before, in the words of each of XLA's parts.
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = [sys.executable, "-m", "bbald_jax", *sys.argv[1:]]
    worker = subprocess.Popen(command, env=environment, pass_fds=(reader,), stderr=subprocess.PIPE)
    os.close(reader)
    signal.set_wakeup_fd(-1)  # ours would end this process first
    signal.signal(signal.SIGINT, lambda number, _: worker.send_signal(number))
    # SIGTERM ends this process, and so the worker, where JAX would take it for a notice only.
    last_words = _pass_on(worker)
    code = worker.wait()
    if not last_words and code != LOST:
        return code if code >= 0 else 128 - code
    if os.isatty(2):
        sys.stderr.write("\x1b[?25h")  # the progress bar hides the cursor
    line = (
        "another process of the cluster has ended or no longer answers (what it said tells why); "
        + after_loss
    )
    if b"RegisterTask" in last_words:
        line = (
            "not all processes of the cluster came together in time; start the same command for "
            "each, with one --coordinator that all of them can reach"
        )
    click.echo(f"bbald: {line}", err=True)
    return LOST


def _pass_on(worker: subprocess.Popen[bytes]) -> bytes:
    """Standard error, line by line, up to JAX's last words, which are returned, if they come."""
    assert worker.stderr is not None
    last_words = b""
    for line in worker.stderr:
        if last_words or _FATAL.match(line):
            last_words += line
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
    return last_words


def _end_with_the_watcher(reader: int) -> None:
    """Whoever kills the process that was started means this one."""

    def wait() -> None:
        os.read(reader, 1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
