"""`bbald compare`: several results folders in one figure."""

from pathlib import Path

import click

from bbald_jax.cli.console import FRACTION, Refused, make_console, one_line_errors
from bbald_jax.experiment import report, results
from bbald_jax.experiment.results import ResultsError


@click.command()
@click.argument(
    "folders", metavar="RESULTS...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--accuracy",
    "accuracies",
    multiple=True,
    type=FRACTION,
    default=(0.9, 0.95),
    show_default=True,
    help="Count the labels needed to reach it; may be given several times.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.png"),
    show_default=True,
    help="The figure (PNG, PDF or SVG, by its suffix).",
)
def compare(folders: tuple[Path, ...], accuracies: tuple[float, ...], output: Path) -> None:
    """Draw several results folders in one figure, and count the labels each needed.

    Of five trials or more, the median and the quartiles are drawn; of fewer, each trial.
    """
    with one_line_errors():
        runs = {str(folder): results.read_rounds(folder) for folder in folders}
        for folder, lines in runs.items():
            results.read_config(Path(folder))
            if not lines:
                raise ResultsError(f"{folder} has no finished round yet; run it first.")
    try:
        report.draw_learning_curves(output, runs)
    except (OSError, ValueError) as error:
        raise Refused(f"--output {output}: {error}") from error
    console = make_console()
    console.print(report.labels_needed_table(runs, accuracies))
    console.print(f"figure: {output}")
