"""What `bbald session` does: say what a session holds, write its labels, repair its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bbald_jax.cli.console import Refused, make_console, printable
from bbald_jax.labelling import repair as repairing
from bbald_jax.labelling.session import Session


def info(file: Path) -> None:
    """Print what a session holds."""
    with _one_line_errors(), Session.open(file) as session:
        # Read to the end, so that each event's checksum is looked at.
        annotators = {event.annotator for event in session.events() if event.annotator}
        labels = session.labelled.labels
        counts = np.bincount(labels, minlength=session.num_classes).tolist()
        lines = {
            "points": session.num_points,
            "labelled": labels.size,
            "pending": session.pending.size,
            "skipped": session.skipped.size,
            "disagreements": len(session.disagreements),
            "annotators": len(annotators),
        }
        names = session.classes or [f"class {i}" for i in range(session.num_classes)]
    console = make_console()
    for name, number in lines.items():
        console.print(f"{name}: {number:,}")
    for name, count in zip(names, counts, strict=True):
        console.print(f"  {printable(name)}: {count:,}")


def repair(file: Path, output: Path) -> None:
    """Recover what can be read of a damaged session."""
    with _one_line_errors():
        report = repairing.repair(file, output)
    lost = f"{report.num_lost:,} events were lost"
    if not report.is_end_known:
        lost += ", and perhaps more behind the last that could be read"
    console = make_console()
    console.print(
        f"written: {output}: {report.num_events:,} events, {report.num_labelled:,} labelled "
        f"points; {lost}"
    )
    if report.num_names_lost:
        console.print(
            f"warning: the names of {report.num_names_lost:,} points were lost, and made up",
            style="yellow",
        )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from error
