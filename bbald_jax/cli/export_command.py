"""What `bbald export` does: the labels of a session in a file, or a folder, for others."""

from pathlib import Path

import click

from bbald_jax.cli.console import Refused
from bbald_jax.labelling.page.items import Items, open_items
from bbald_jax.labelling.page.results import rows_of, write_folders, write_table
from bbald_jax.labelling.page.sources import last_source
from bbald_jax.labelling.session import Session


def export(file: Path, output: Path, every_answer: bool) -> None:
    """Write the labels; the options are explained in `labelling_commands`."""
    try:
        with Session.open(file) as session:
            is_folder = not output.suffix
            items = _items(session, is_needed=is_folder)
            rows = rows_of(session, items, every_answer=every_answer and not is_folder)
            if is_folder:
                assert items is not None
                write_folders(output, session, items, rows)
            else:
                write_table(output, rows)
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from error
    click.echo(f"{len(rows):,} labels written: {output}")


def _items(session: Session, *, is_needed: bool) -> Items | None:
    """What the labels are about, where it still is there; without it a table has no texts."""
    source = last_source(session)
    if source is None or not source.data:
        if is_needed:
            raise ValueError("--output: a folder needs images, and this session names none")
        return None
    try:
        ids = session.ids
        names = ids.tolist() if ids.dtype.kind == "U" else None
        items = open_items(Path(source.data), column=source.column, array=source.array, names=names)
        if items.digest != source.digest:
            raise ValueError(f"{source.data}: has changed since it was labelled")
    except (ValueError, OSError) as error:
        if is_needed:
            raise
        click.echo(f"warning: {error}", err=True)
        return None
    return items
