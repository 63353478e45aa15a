"""What `bbald compare` does: several results folders in one figure."""

from pathlib import Path

from bbald_jax.cli.console import Refused, make_console, one_line_errors
from bbald_jax.experiment import report, results
from bbald_jax.experiment.results import Line, ResultsError


def compare(folders: tuple[Path, ...], accuracies: tuple[float, ...], output: Path) -> None:
    """Draw several results folders in one figure, and count the labels each needed."""
    with one_line_errors():
        runs = {str(folder): _read(folder) for folder in folders}
    try:
        report.draw_learning_curves(output, runs)
    except (OSError, ValueError) as error:
        raise Refused(f"--output {output}: {error}") from error
    console = make_console()
    console.print(report.labels_needed_table(runs, accuracies))
    console.print(f"figure: {output}")


def _read(folder: Path) -> list[Line]:
    """The finished rounds of a results folder, of which there must be some."""
    try:
        lines = results.read_rounds(folder)
        results.read_config(folder)
    except OSError as error:
        raise ResultsError(f"{folder}: {error.strerror}; give a results folder.") from error
    if not lines:
        raise ResultsError(f"{folder} has no finished round yet; run it first.")
    return lines
