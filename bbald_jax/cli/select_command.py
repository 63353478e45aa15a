"""What `bbald select` does: a batch from a file of predictions."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import click
import jax
from rich import box
from rich.table import Table

from bbald_jax.acquisition.functions import catalogue
from bbald_jax.acquisition.selection import Selection
from bbald_jax.acquisition.selection import select as select_points
from bbald_jax.acquisition.streamed import STREAMED
from bbald_jax.acquisition.streamed_selection import select_from_source
from bbald_jax.acquisition.warnings import certificate_line
from bbald_jax.cli.console import Refused, make_console, printable
from bbald_jax.cli.how_far import HowFar
from bbald_jax.cli.memory import free_memory
from bbald_jax.cli.prediction_files import read_ids, read_points, read_predictions
from bbald_jax.experiment.processes import devices_in_use, is_first
from bbald_jax.files import destination, finite, write_atomically
from bbald_jax.labelling.spreadsheet import to_cell
from bbald_jax.sources import FileArray, as_source
from bbald_jax.typing import BatchBALDDiagnostics, Device
from bbald_jax.validation import Kind, in_order

_OUTPUTS = (".csv", ".json")
# With so many predictions a selection takes seconds, and says how far it is.
_MUCH = 5_000_000
_GB = 1e9
# A selection in memory holds its predictions in float32, and what it makes of them, twice as much.
_COPIES = 3

Row = dict[str, Any]


def select(
    predictions: Path,
    kind: Kind,
    array: str | None,
    axes: str,
    exclude: Path | None,
    pending: Path | None,
    candidates: Path | None,
    targets: Path | None,
    ids: Path | None,
    output: Path | None,
    devices: int | None,
    memory: float | None,
    **settings: Any,
) -> None:
    """Choose the points to label next; the options are explained in `main`."""
    lists = {"exclude": exclude, "pending": pending, "candidates": candidates}
    try:
        if output is not None:
            _check_output(output, [predictions, targets, ids, *lists.values()])
        values = in_order(read_predictions(predictions, array), axes, str(predictions))
        names = None if ids is None else read_ids(ids)
        if names is not None and len(names) != len(values):
            raise ValueError(
                f"{ids}: {len(names)} names for {len(values)} points; give one for each, in the "
                "order of the predictions"
            )
        target_values = None
        if targets is not None:
            target_values = in_order(read_predictions(targets), axes, str(targets))
        points = {name: read_points(path, names) for name, path in lists.items() if path}
        options = {"kind": kind, "targets": target_values, **points, **settings}
        limit = free_memory() / 2 if memory is None else memory * _GB
        source = None
        if devices in (None, 1) and jax.process_count() == 1:
            source = _in_pieces(values, settings["acquisition"], limit, given=memory is not None)
        if source is not None:
            options["progress"] = HowFar(values.nbytes)
            batch = select_from_source(source, memory=limit, axes=axes, **options)
        else:
            options["progress"] = None
            if values.size >= _MUCH:
                options["progress"] = _say_how_far
                click.echo(f"reading {values.size:,} predictions", err=True)
            its_devices = _devices(devices, values.size, settings["acquisition"])
            batch = select_points(values, **options, devices=its_devices)
        rows = _rows(batch, names)
        if output is not None and is_first():
            _write(output, rows)
    except (ValueError, OSError, MemoryError) as error:
        raise Refused(str(error)) from error
    console = make_console()
    console.print(_table(rows, settings["acquisition"]))
    diagnostics = batch.diagnostics
    if isinstance(diagnostics, BatchBALDDiagnostics):
        score = float(batch.scores[-1])
        console.print(certificate_line(len(rows), score, diagnostics))
    if batch.targets.size:
        console.print(f"targets: {batch.targets.size} random points of the pool (see --targets)")
    for warning in batch.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if output is not None:
        console.print(f"written: {output}")


def _devices(most: int | None, size: int, acquisition: str) -> list[Device]:
    """Those to spread the pool over: several, where it is large or they were asked for; or none."""
    devices = devices_in_use(most)
    if jax.process_count() > 1:
        return devices
    is_worth_it = most is not None or size >= _MUCH
    can_be_spread = catalogue()[acquisition].takes_axis_name
    if len(devices) == 1 or not (is_worth_it and can_be_spread):
        return []
    click.echo(f"spread over {len(devices)} devices", err=True)
    return devices


def _in_pieces(values: Any, acquisition: str, limit: float, *, given: bool) -> FileArray | None:
    """The file behind the predictions, where a selection in memory would take more than `limit`."""
    needed = _COPIES * 4 * values.size
    if needed <= limit:
        return None
    source = as_source(values)
    if isinstance(source, FileArray) and acquisition in STREAMED:
        return source
    if given:
        why = (
            f"{acquisition} cannot read a pool piece by piece, as {', '.join(STREAMED)} can"
            if isinstance(source, FileArray)
            else "only .npy and .safetensors files can be read piece by piece"
        )
        raise ValueError(
            f"--memory {limit / _GB:g}: a selection in memory takes about {needed / _GB:.1f} GB, "
            f"and {why}; raise --memory"
        )
    return None


def _say_how_far(num_chosen: int) -> None:
    click.echo(f"points chosen: {num_chosen}", err=True)


def _check_output(output: Path, inputs: list[Path | None]) -> None:
    """Before anything is computed: the batch can be written there, and destroys no input."""
    if output.suffix.lower() not in _OUTPUTS:
        raise ValueError(
            f"--output {output}: suffix {output.suffix!r} is none of {', '.join(_OUTPUTS)}"
        )
    if not output.parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise ValueError(f"--output {output}: that is a folder; name a file in it")
    final = destination(output)
    if any(path is not None and os.path.realpath(path) == str(final) for path in inputs):
        raise ValueError(f"--output {output}: that is an input too; name another file")


def _rows(batch: Selection, names: list[str] | None) -> list[Row]:
    columns = (batch.indices, batch.gains, batch.scores, batch.predicted_classes)
    return [
        {
            "order": order,
            "index": int(index),
            **({} if names is None else {"id": names[index]}),
            "gain": float(str(gain)),  # not the many digits of a float32 seen as a float64
            "score": float(str(score)),
            "predicted_class": int(predicted),
        }
        for order, (index, gain, score, predicted) in enumerate(zip(*columns, strict=True), start=1)
    ]


def _write(path: Path, rows: list[Row]) -> None:
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        # Not "\n", with which the writer would leave a carriage return in a name unquoted.
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"id": to_cell(row["id"])} if "id" in row else row)
        write_atomically(path, text.getvalue())
    else:
        # A score may be infinite, the logarithm of zero.
        write_atomically(path, json.dumps(finite(rows), indent=2, allow_nan=False) + "\n")


def _four_digits(value: float) -> str:
    return f"{round(value, 4) + 0:.4f}"  # rounding below zero is no -0.0000


def _table(rows: list[Row], acquisition: str) -> Table:
    """One row a point, in order of acquisition."""
    point = "id" if "id" in rows[0] else "index"
    table = Table(title=f"{acquisition}: points to label", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("order", point, "gain", "score", "class"):
        if name == "id":
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["order"]),
            printable(str(row[point])),
            _four_digits(row["gain"]),
            _four_digits(row["score"]),
            str(row["predicted_class"]),
        )
    return table
