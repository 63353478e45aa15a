"""The command line: what it explains, how it ends, and that it refuses in one line."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from runs import make_line

from bbald_jax.cli.main import main
from bbald_jax.experiment import datasets, report, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.idx import DatasetUnavailableError
from bbald_jax.experiment.results import Line

RUN_OPTIONS = {
    param.opts[0]: param for param in main.commands["run"].params if isinstance(param, click.Option)
}


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def flat(text: str) -> str:
    """Without the line ends that depend on the width of the terminal."""
    return " ".join(text.split())


LINES = [make_line(i, is_last=i == 2) for i in range(3)]
ARGUMENTS = ("run", "--num-rounds=2", "--acquisition-size=1", "--no-baseline")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | Line]:
    """Instead of an experiment: the lines it will yield; an exception in their place is raised."""
    script: list[BaseException | Line] = [*LINES]

    def run(
        config: Config, folder: Path, dataset: Dataset, features_folder: Path, devices: Any
    ) -> Iterator[Line]:
        done = len(results.read_rounds(folder))
        for event in script[done:]:
            if isinstance(event, BaseException):
                raise event
            results.append_round(folder, event)
            yield event

    monkeypatch.setattr(trials, "run", run)
    return script


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, one line on standard error, and no traceback."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", [(), ("run",), ("compare",)])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_ends_well(command: tuple[str, ...], option: str):
    result = invoke(*command, option)
    assert result.exit_code == 0
    assert "Usage: " in result.output


# That of the acquisition function depends on the learner: the folder's name shows it, below.
@pytest.mark.parametrize("name", sorted(vars(Config()).keys() - {"acquisition"}))
def test_every_setting_has_an_option_with_its_default(name: str):
    option = RUN_OPTIONS[f"--{name.replace('_', '-')}"]
    assert option.default == getattr(Config(), name)
    assert option.help


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("--dataset", "digits"),
        ("--acquisition", "(batchbald; with the logistic head weighted-epig-closed)"),
        ("--acquisition-size", "10"),
        ("--num-samples", "100"),
        ("--num-configurations", "10000"),
        ("--num-rounds", "10"),
        ("--target-accuracy", "(no target)"),
        ("--initial-per-class", "2"),
        ("--pool-size", "(the whole pool)"),
        ("--num-repeats", "3"),
        ("--noise", "0.1"),
        ("--recipe", "paper"),
        ("--seed", "0"),
        ("--num-trials", "1"),
        ("--learner", "dropout-"),
        ("--features", "none"),
        ("--no-baseline", "(for digits and for the logistic head, where it takes seconds)"),
        ("--output-dir", "(results/DATASET-ACQUISITION-seedSEED, with learner and features if"),
    ],
)
def test_the_help_explains_every_option_with_its_default(option: str, default: str):
    text = flat(invoke("run", "--help").output)
    # What stands between this option and the next one.
    _, _, text = text.partition(f" {option} ")
    text = text.partition(" --")[0]
    assert f"[default: {default}" in text


def test_the_help_forgets_no_option():
    text = flat(invoke("run", "--help").output)
    assert len(RUN_OPTIONS) == 22
    assert text.count("[default: ") == 19


def choices(option: str) -> list[str]:
    choice = RUN_OPTIONS[option].type
    assert isinstance(choice, click.Choice)
    return list(choice.choices)


@pytest.mark.parametrize("name", ["digits", "mnist", "repeated-mnist", "fashion-mnist"])
def test_data_sets_can_be_chosen(name: str):
    assert name in choices("--dataset")


@pytest.mark.parametrize("name", ["batchbald", "bald", "random"])
def test_acquisition_functions_can_be_chosen(name: str):
    assert name in choices("--acquisition")


def test_a_run_shows_its_rounds_ends_with_a_table_and_leaves_files(folder: Path, fake):
    result = invoke(*ARGUMENTS, "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    text = flat(result.output)
    assert "round 1/2: 21 labels, accuracy 67.00%" in text
    assert "0 2 22 83.75% 500 1.500 - 1.0 1.0 1.0" in text
    assert "continuing" not in text
    names = {"config.json", "rounds.jsonl", "rounds.csv", "learning_curve.png", "acquired.png"}
    names |= {"lock"}
    assert {path.name for path in folder.iterdir()} == names
    assert results.read_config(folder) == vars(Config(num_rounds=2, acquisition_size=1))


WITH_BASELINE = ("run", "--num-rounds=2", "--acquisition-size=1")


def test_random_acquisition_is_run_beside_it_and_drawn_with_it(
    folder: Path, fake, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    monkeypatch.setattr(
        report, "draw_learning_curves", lambda path, runs: drawn.append((path, [*runs]))
    )
    result = invoke(*WITH_BASELINE, "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    text = flat(result.output)
    assert "batchbald, round 1/2: 21 labels" in text
    assert "random, round 1/2: 21 labels" in text
    assert "With 2 labels acquired: batchbald 83.75%, random 83.75%" in text
    assert drawn == [(folder / "learning_curve.png", ["digits, batchbald", "digits, random"])]
    assert results.read_config(folder / "random")["acquisition"] == "random"
    assert results.read_rounds(folder / "random") == LINES
    assert (folder / "random" / "rounds.csv").exists()
    # Again: nothing is run, nothing is drawn.
    fake.append(AssertionError("it was run again"))
    assert invoke(*WITH_BASELINE, "--output-dir", folder).exit_code == 0
    assert len(drawn) == 1


def test_a_baseline_that_was_interrupted_continues_and_is_drawn(folder: Path, fake):
    assert invoke(*ARGUMENTS, "--output-dir", folder).exit_code == 0
    before = (folder / "learning_curve.png").read_bytes()
    fake.insert(1, OSError(28, "No space left on device"))
    assert_refused(invoke(*WITH_BASELINE, "--output-dir", folder), "No space left on device")
    assert results.read_rounds(folder / "random") == LINES[:1]
    fake.pop(1)
    result = invoke(*WITH_BASELINE, "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    assert "is finished; nothing was run" in flat(result.output)
    assert "trial 0 after 1 finished rounds" in flat(result.output)
    assert (folder / "learning_curve.png").read_bytes() != before


def test_a_run_and_its_baseline_share_their_features(
    folder: Path, fake, monkeypatch: pytest.MonkeyPatch
):
    run, kept = trials.run, []

    def watched(*arguments, features_folder: Path, devices: Any):
        kept.append(features_folder)
        return run(*arguments, features_folder=features_folder, devices=devices)

    monkeypatch.setattr(trials, "run", watched)
    assert invoke(*WITH_BASELINE, "--output-dir", folder).exit_code == 0
    assert kept == [folder, folder]


def test_a_baseline_in_use_is_refused(folder: Path, fake):
    assert invoke(*ARGUMENTS, "--output-dir", folder).exit_code == 0
    with results.locked(folder / "random"):
        assert_refused(invoke(*WITH_BASELINE, "--output-dir", folder), "random is in use")


@pytest.mark.parametrize(
    ("options", "has_baseline"),
    [
        ((), True),
        (("--dataset=mnist",), False),
        (("--dataset=mnist", "--baseline"), True),
        (("--dataset=mnist", "--learner=logistic-head"), True),
        (("--learner=logistic-head", "--no-baseline"), False),
        (("--acquisition=random", "--baseline"), False),
    ],
)
def test_where_the_baseline_is_cheap_it_is_run(
    folder: Path, fake, monkeypatch: pytest.MonkeyPatch, options, has_baseline: bool
):
    digits = datasets.load_digits()
    monkeypatch.setattr(trials, "load", lambda config: digits)
    result = invoke(*WITH_BASELINE, *options, "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    assert (folder / "random").exists() == has_baseline


def test_learner_and_features_are_in_the_name_of_the_folder(
    tmp_path: Path, fake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    options = ("--learner=logistic-head", "--features=image+graph")
    assert invoke(*ARGUMENTS, *options).exit_code == 0
    assert Path("results/digits-logistic-head-image+graph-weighted-epig-closed-seed0").exists()


def test_a_network_without_labels_says_that_its_first_batch_is_random(folder: Path, fake):
    words = "no labels to start with: a network's first batch is drawn at random"
    options = (*ARGUMENTS, "--initial-per-class=0", "--output-dir")
    assert words in flat(invoke(*options, folder).output)
    head = (*options, folder.with_name("head"), "--learner=logistic-head")
    assert words not in flat(invoke(*head).output)


def test_a_run_that_outran_its_samples_says_so(folder: Path, fake):
    arguments = (*ARGUMENTS, "--num-samples=20", "--output-dir", folder)
    assert "posterior samples" not in invoke(*arguments).output
    lines = [{**line} for line in LINES]
    lines[1] |= {"indices": [1, 2, 3], "remaining_entropy": [0.2, 0.09, 0.01]}
    results.write_rounds(folder, lines)
    text = flat(invoke(*arguments).output)
    assert "In 1 of 2 rounds the K = 20 posterior samples were spent" in text
    assert "(trial 0, round 1: after point 2)" in text
    assert "raise --num-samples to 200" in text


def test_without_an_output_dir_the_folder_is_named_after_the_run(
    tmp_path: Path, fake, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert invoke(*ARGUMENTS, "--acquisition=bald", "--seed=3").exit_code == 0
    assert results.read_rounds(Path("results/digits-bald-seed3")) == LINES


def test_an_unfinished_run_continues(folder: Path, fake):
    fake.insert(1, OSError(28, "No space left on device"))
    result = invoke(*ARGUMENTS, "--output-dir", folder)
    assert_refused(result, f"{folder}: No space left on device; every finished round is kept")
    assert results.read_rounds(folder) == LINES[:1]
    assert not (folder / "rounds.csv").exists()

    fake.pop(1)
    result = invoke(*ARGUMENTS, "--output-dir", folder)
    assert result.exit_code == 0
    assert "continuing" in result.output
    assert "trial 0 after 1 finished rounds" in flat(result.output)
    assert results.read_rounds(folder) == LINES


def test_a_folder_in_use_is_refused(folder: Path, fake):
    with results.locked(folder):
        before = set(folder.iterdir())
        assert_refused(invoke(*ARGUMENTS, "--output-dir", folder), "in use by another process")
        assert set(folder.iterdir()) == before
    assert invoke(*ARGUMENTS, "--output-dir", folder).exit_code == 0


def test_a_finished_run_is_reported_not_run_again(folder: Path, fake):
    invoke(*ARGUMENTS, "--output-dir", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    fake.append(AssertionError("it was run again"))
    result = invoke(*ARGUMENTS, "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    assert "is finished; nothing was run." in flat(result.output)
    assert "0 2 22 83.75% 500" in flat(result.output)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_finished_run_is_extended_and_drawn_again(folder: Path, fake):
    invoke(*ARGUMENTS, "--output-dir", folder)
    table = (folder / "rounds.csv").read_text()
    fake[2:] = [make_line(i, is_last=i == 3) for i in (2, 3)]
    result = invoke(*ARGUMENTS, "--num-rounds=3", "--output-dir", folder)
    assert result.exit_code == 0, result.exception
    assert "trial 0 after 2 finished rounds" in flat(result.output)
    assert results.read_rounds(folder) == fake
    assert (folder / "rounds.csv").read_text().count("\n") == table.count("\n") + 1
    assert (folder / "learning_curve.png").exists()
    assert_refused(
        invoke(*ARGUMENTS, "--output-dir", folder),
        "holds round 2 of trial 0, and --num-rounds is 2 now; a run can be extended, not shortened",
    )


def test_brackets_in_the_folder_are_not_swallowed(tmp_path: Path, fake):
    result = invoke(*ARGUMENTS, "--output-dir", tmp_path / "[bold]" / "x")
    assert result.exit_code == 0
    assert f"{tmp_path / '[bold]' / 'x'}: config.json" in flat(result.output)


def test_a_kill_while_drawing_is_made_good(folder: Path, fake):
    invoke(*ARGUMENTS, "--output-dir", folder)
    (folder / "acquired.png").unlink()
    (folder / "rounds.csv").unlink()
    assert invoke(*ARGUMENTS, "--output-dir", folder).exit_code == 0
    assert (folder / "acquired.png").exists()
    assert (folder / "rounds.csv").exists()


def test_another_machine_is_mentioned(folder: Path, fake):
    there = {**trials.environment(), "device": "abacus"}
    results.open_folder(folder, vars(Config(num_rounds=2, acquisition_size=1)), there)
    results.append_round(folder, LINES[0])
    result = invoke(*ARGUMENTS, "--output-dir", folder)
    assert result.exit_code == 0
    assert "abacus" in result.output


def test_another_configuration_is_refused(folder: Path, fake):
    invoke(*ARGUMENTS, "--output-dir", folder)
    result = invoke(*ARGUMENTS, "--seed=7", "--output-dir", folder)
    assert_refused(result, "seed is 0 there and 7 now", "--output-dir")


def test_a_foreign_folder_is_refused(tmp_path: Path, fake):
    (tmp_path / "thesis.tex").write_text("")
    assert_refused(invoke(*ARGUMENTS, "--output-dir", tmp_path), "no results folder")


def test_a_file_is_refused(tmp_path: Path, fake):
    path = tmp_path / "file"
    path.write_text("")
    assert_refused(invoke(*ARGUMENTS, "--output-dir", path), "is a file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pool-size=1001",), "--pool-size 1001: digits has 1000 points"),
        (("--initial-per-class=500",), "--initial-per-class 500"),
    ],
)
def test_what_the_data_set_cannot_serve_is_refused(folder: Path, arguments, words: str):
    assert_refused(invoke("run", *arguments, "--output-dir", folder), words)


def test_a_data_set_that_cannot_be_had_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def load_dataset(*args, **kwargs):
        raise DatasetUnavailableError("no mirror answers")

    monkeypatch.setattr(trials, "load_dataset", load_dataset)
    assert_refused(invoke("run", "--dataset=mnist", "--output-dir", folder), "no mirror answers")


def test_a_data_file_that_is_not_the_original_is_one_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mnist").mkdir()
    for name in datasets.IDX_FILES:
        (tmp_path / "mnist" / name).write_bytes(gzip.compress(b"not MNIST"))
    monkeypatch.setenv("BBALD_DATA_DIR", str(tmp_path))
    result = invoke("run", "--dataset=mnist", "--output-dir", folder)
    assert_refused(result, datasets.IDX_FILES[0], "not the original file")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dataset=imagenet",),
        ("--acquisition=oracle",),
        ("--recipe=grandmother",),
        ("--acquisition-size=0",),
        ("--num-samples=0",),
        ("--num-configurations=0",),
        ("--num-rounds=-1",),
        ("--num-trials=0",),
        ("--num-repeats=0",),
        ("--pool-size=0",),
        ("--initial-per-class=-1",),
        ("--target-accuracy=0",),
        ("--target-accuracy=1.5",),
        ("--target-accuracy=nan",),
        ("--noise=-1",),
        ("--noise=nan",),
        ("--noise=inf",),
        ("--seed=-1",),
        ("--epochs=3",),
    ],
)
def test_options_out_of_range_are_refused(folder: Path, fake, arguments: tuple[str, ...]):
    result = invoke(*ARGUMENTS, *arguments, "--output-dir", folder)
    assert result.exit_code == 2
    assert arguments[0].partition("=")[0] in result.stderr
    assert not folder.exists()


@pytest.fixture
def two_runs(tmp_path: Path, fake) -> list[Path]:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        assert invoke(*ARGUMENTS, "--output-dir", folder).exit_code == 0
    return folders


def test_compare_draws_and_counts(two_runs: list[Path], tmp_path: Path):
    figure = tmp_path / "figure.png"
    result = invoke("compare", *two_runs, "--accuracy=0.6", "--accuracy=0.9", "--output", figure)
    assert result.exit_code == 0, result.exception
    assert figure.read_bytes().startswith(b"\x89PNG")
    for column in ("60 %", "90 %"):
        assert column in flat(result.output)
    assert flat(result.output).count("never") == 2


def test_compare_counts_to_90_and_95_percent_by_default(
    two_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = invoke("compare", "one")
    assert result.exit_code == 0
    assert "90 %" in flat(result.output)
    assert "95 %" in flat(result.output)
    assert (tmp_path / "comparison.png").exists()


def test_compare_refuses_what_is_no_results_folder(two_runs: list[Path], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        folder = tmp_path / name
        result = invoke("compare", two_runs[0], folder, "--output", tmp_path / "figure.png")
        assert_refused(result, str(folder), "no config.json")
    assert not (tmp_path / "figure.png").exists()


def test_compare_refuses_a_run_without_a_round(folder: Path):
    results.open_folder(folder, vars(Config()), trials.environment())
    assert_refused(invoke("compare", folder), "no finished round yet")


@pytest.mark.parametrize("name", ["figure.xyz", "missing/figure.png"])
def test_compare_refuses_a_figure_it_cannot_write(two_runs: list[Path], tmp_path: Path, name: str):
    assert_refused(invoke("compare", two_runs[0], "--output", tmp_path / name), name)


def test_compare_needs_a_folder():
    assert invoke("compare").exit_code == 2


def test_the_version_is_that_of_the_package():
    assert "0.1.0" in invoke("--version").output
