"""Experiments on disk: interrupted anywhere, they continue to the same lines, bit for bit."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from click.testing import CliRunner, Result
from runs import lines_of, options, without_seconds

from bbald_jax.acquisition import inputs
from bbald_jax.cli.main import main
from bbald_jax.experiment import datasets, learners, report, results, splits, trials
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.datasets import Dataset
from bbald_jax.experiment.learners import FEATURES_FILE
from bbald_jax.experiment.results import Line
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.networks import MLP
from bbald_jax.learning.recipes import RECIPES

CONFIG = Config(acquisition_size=3, num_samples=5, num_configurations=50, num_rounds=5)
NUM_LINES = CONFIG.num_rounds + 1
#: What the last round acquires.
NOTHING = {
    "is_last": True,
    "indices": [],
    "classes": [],
    "scores": [],
    "gains": [],
    "remaining_entropy": [],
}


def open_folder(folder: Path, config: Config = CONFIG) -> bool:
    return results.open_folder(folder, vars(config), trials.environment())


def run(folder: Path, config: Config = CONFIG, num_lines: int | None = None) -> list[Line]:
    """Run to the end, or stop after so many lines; all lines of the folder, without seconds."""
    open_folder(folder, config)
    rounds = trials.run(config, folder)
    for _ in itertools.islice(rounds, num_lines):
        pass
    rounds.close()  # type: ignore[attr-defined]
    return lines_of(folder)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Runs that differ in nothing that is compiled share the jitted functions of one `Loop`.

    The paper's recipe with fewer steps, and a narrow network: these tests are of what is kept, not
    of what is learnt.
    """
    loops = {}
    make_loop = trials.make_loop

    def make_loop_once(config: Config, dataset: Dataset):
        key = dataclasses.replace(config, seed=0, num_trials=1, target_accuracy=None)
        if key not in loops:
            loops[key] = make_loop(config, dataset)
        return loops[key]

    short = RECIPES["paper"]._replace(
        batch_size=16, learning_rate=0.01, steps_per_epoch=20, max_epochs=4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "make_loop", make_loop_once)
        patch.setitem(RECIPES, "paper", short)
        patch.setattr(learners, "MLP", partial(MLP, hidden=(32,), dropout_rate=0.2))
        yield


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load_digits()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def expected(finished: Path) -> list[Line]:
    return lines_of(finished)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run that was stopped after three rounds."""
    folder = tmp_path_factory.mktemp("interrupted") / "results"
    assert len(run(folder, num_lines=3)) == 3
    return folder


@pytest.fixture
def damaged(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(interrupted, tmp_path / "damaged")


def test_the_lines_of_a_run(expected: list[Line], digits: Dataset):
    assert [line["round"] for line in expected] == list(range(NUM_LINES))
    assert [line["num_labelled"] for line in expected] == [20, 23, 26, 29, 32, 35]
    assert [line["num_acquired"] for line in expected] == [0, 3, 6, 9, 12, 15]
    for line in expected:
        assert line["trial"] == 0
        assert line["num_test"] == len(digits.y_test)
        assert line["accuracy"] == line["num_correct"] / line["num_test"]
        lengths = {len(line[name]) for name in ("indices", "classes", "scores", "gains")}
        assert lengths == {0 if line["round"] == CONFIG.num_rounds else 3}
    assert expected[-1]["accuracy"] > 0.5
    assert len({line["nll"] for line in expected}) == NUM_LINES


def test_indices_are_those_of_the_data_set(expected: list[Line], digits: Dataset):
    indices = [i for line in expected for i in line["indices"]]
    classes = [c for line in expected for c in line["classes"]]
    assert digits.y_train[indices].tolist() == classes
    assert len(set(indices)) == len(indices) == 15
    split = splits.split(CONFIG, digits, trial=0)
    assert set(indices) <= set(split.pool.tolist())
    assert not set(indices) & set(split.validation.tolist())


def test_the_arrays_of_a_run_are_the_points_of_the_split(digits: Dataset):
    pool, validation = splits.split(CONFIG, digits, trial=0)
    data = splits.gather(digits, pool, validation)
    for array, there in (
        (data.x, digits.x_train[pool]),
        (data.y, digits.y_train[pool]),
        (data.validation.x, digits.x_train[validation]),
        (data.validation.y, digits.y_train[validation]),
        (data.x_test, digits.x_test),
        (data.y_test, digits.y_test),
    ):
        np.testing.assert_array_equal(array, there)
    assert data.validation.num_examples == len(validation)


def test_targets_are_a_part_of_the_pool_that_seed_and_trial_decide(digits: Dataset):
    def targets(num_points: int = 1000, seed: int = 0, trial: int = 0) -> list[int]:
        config = dataclasses.replace(CONFIG, acquisition="epig", seed=seed)
        return splits.targets(config, trial, num_points).tolist()

    assert len(set(targets())) == len(targets()) == inputs.NUM_TARGETS == 500
    assert targets() == targets()
    assert len({tuple(x) for x in (targets(), targets(trial=1), targets(seed=1))}) == 3
    assert sorted(targets(num_points=30)) == list(range(30))


def test_epig_is_given_its_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def guess(key: Any, state: None, x: Any, num_samples: int) -> Any:
        return jax.nn.log_softmax(jax.random.normal(key, (len(x), num_samples, 10)))

    make_loop = trials.make_loop
    learner = Learner(lambda key, x: None, lambda *_: None, guess)
    monkeypatch.setattr(
        trials, "make_loop", lambda *args: make_loop(*args)._replace(learner=learner)
    )
    lines = run(tmp_path, dataclasses.replace(CONFIG, acquisition="epig", num_rounds=1))
    assert [len(line["indices"]) for line in lines] == [3, 0]
    assert all(0 < score < np.log(10) for score in lines[0]["scores"])


def add_a_line_that_was_not_saved(folder: Path) -> None:
    line = results.read_rounds(folder)[-1]
    results.append_round(folder, {**line, "round": 3, "num_correct": 0, "indices": [0, 1, 2]})


def add_a_line_cut_short(folder: Path) -> None:
    with open(folder / results.ROUNDS, "a") as file:
        file.write('{"trial": 0, "round": 3, "num_la')


def leave_temporary_files(folder: Path) -> None:
    (folder / "rounds.jsonl.tmp").write_text("half a li")
    (folder / "checkpoints" / "trial_0" / "4.orbax-checkpoint-tmp" / "default").mkdir(parents=True)


def delete_the_last_line(folder: Path) -> None:
    results.write_rounds(folder, results.read_rounds(folder)[:-1])


def delete_all_but_the_first_line(folder: Path) -> None:
    results.write_rounds(folder, results.read_rounds(folder)[:1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: None,
        add_a_line_that_was_not_saved,
        add_a_line_cut_short,
        leave_temporary_files,
        delete_the_last_line,
        delete_all_but_the_first_line,  # what the message about a damaged line says to do
    ],
)
def test_an_interrupted_run_continues(
    damaged: Path, damage: Callable[[Path], None], expected: list[Line]
):
    damage(damaged)
    assert run(damaged) == expected


def test_a_finished_run_without_its_last_line_runs_that_round(
    finished: Path, tmp_path: Path, expected: list[Line]
):
    folder = shutil.copytree(finished, tmp_path / "copy")
    delete_the_last_line(folder)
    assert run(folder) == expected


def test_only_the_rounds_that_are_left_are_run(damaged: Path, expected: list[Line]):
    assert open_folder(damaged)
    left = list(trials.run(CONFIG, damaged))
    assert [without_seconds(line) for line in left] == expected[3:]
    assert list(trials.run(CONFIG, damaged)) == []


def test_a_continued_run_is_compiled_like_a_new_one(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
):
    # Else the trials after the one that is continued would compile everything again.
    def fit_nothing(key: Any, *_: Any) -> Any:
        return key

    def sample_nothing(key: Any, state: Any, x: Any, num_samples: int) -> Any:
        return jnp.full((len(x), num_samples, 10), jnp.log(0.1))

    learner = Learner(
        lambda key, x: None, jax.jit(fit_nothing), jax.jit(sample_nothing, static_argnums=3)
    )
    # Another function than batchbald, which takes long to compile.
    config = dataclasses.replace(CONFIG, acquisition="random")
    loop = trials.make_loop(config, digits)._replace(learner=learner)
    monkeypatch.setattr(trials, "make_loop", lambda *_: loop)
    start = len(toy.COMPILED)
    run(tmp_path, num_lines=2)
    before = len(toy.COMPILED)
    assert any("fit_nothing" in name for name in toy.COMPILED[start:before])
    run(tmp_path, num_lines=1)
    again = [name for name in toy.COMPILED[before:] if "nothing" in name or "ask" in name]
    assert again == []


def test_each_line_is_on_disk_when_it_is_yielded(tmp_path: Path):
    open_folder(tmp_path)
    for line in itertools.islice(trials.run(CONFIG, tmp_path), 2):
        assert results.read_rounds(tmp_path)[-1] == line


def test_trials_are_independent_and_continue(finished: Path, tmp_path: Path, expected: list[Line]):
    config = dataclasses.replace(CONFIG, num_trials=2)
    folder = tmp_path / "results"
    assert len(run(folder, config, num_lines=NUM_LINES + 2)) == NUM_LINES + 2
    assert not trials.is_finished(results.read_rounds(folder), 1)
    lines = run(folder, config)
    assert [(line["trial"], line["round"]) for line in lines] == list(
        itertools.product(range(2), range(NUM_LINES))
    )
    assert lines[:NUM_LINES] == expected
    assert lines[NUM_LINES]["nll"] != expected[0]["nll"]
    assert lines[NUM_LINES]["indices"] != expected[0]["indices"]
    # More trials for a run that was over are the trials of the larger run.
    extended = shutil.copytree(finished, tmp_path / "extended")
    assert run(extended, config) == lines


def test_more_rounds_for_a_finished_run_are_those_of_the_longer_run(
    tmp_path: Path, expected: list[Line]
):
    # Another capacity of the buffers, compiled anew, and the same bits.
    short = run(tmp_path, dataclasses.replace(CONFIG, num_rounds=2))
    assert short[:2] == expected[:2]
    assert short[2] == expected[2] | NOTHING
    assert run(tmp_path) == expected


def test_few_rounds_have_all_configurations_too(digits: Dataset):
    # C ** capacity bounds them; three labels of ten classes would have only 1,000.
    config = dataclasses.replace(CONFIG, initial_per_class=0, num_rounds=1)
    assert 10 ** trials.make_loop(config, digits).capacity > Config().num_configurations


def test_trials_run_together_take_turns_and_continue(
    tmp_path: Path, expected: list[Line], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trials, "_num_together", lambda *args: 2)
    config = dataclasses.replace(CONFIG, num_trials=3)
    whole = run(tmp_path / "whole", config)
    assert [(line["trial"], line["round"]) for line in whole] == [
        *((trial, index) for index in range(NUM_LINES) for trial in (0, 1)),
        *((2, index) for index in range(NUM_LINES)),
    ]
    # Compiled for two, the same to rounding.
    for line, alone in zip([x for x in whole if x["trial"] == 0], expected, strict=True):
        assert line["num_acquired"] == alone["num_acquired"]
        assert line["trial_key"] == alone["trial_key"]
    assert whole[0]["indices"] == expected[0]["indices"]

    # Stopped when trial 0 has a round more than trial 1, and when only trial 2 is left.
    for num_lines in (5, 2 * NUM_LINES + 1):
        folder = tmp_path / f"after_{num_lines}"
        assert len(run(folder, config, num_lines=num_lines)) == num_lines
        lines = run(folder, config)
        in_order = sorted(lines, key=lambda line: (line["trial"], line["round"]))
        assert in_order == sorted(whole, key=lambda line: (line["trial"], line["round"]))


def test_as_many_trials_run_together_as_half_of_the_memory_holds(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
):
    def sizes(num_trials: int, memory: float | None) -> int:
        config = dataclasses.replace(CONFIG, num_trials=num_trials)
        loop = trials.make_loop(config, digits)
        its_splits = [splits.split(config, digits, trial) for trial in range(num_trials)]
        monkeypatch.setattr(trials, "_accelerator_bytes", lambda: memory)
        return trials._num_together(config, digits, loop, its_splits)

    assert sizes(6, None) == 1  # a CPU
    assert sizes(6, 1) == 1
    assert sizes(6, 1 << 40) == 6
    data = splits.gather(digits, *splits.split(CONFIG, digits, 0))
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(data))
    # Data alone would let 24 of 30 in; the network's fit needs memory too. Groups are equal.
    size = sizes(30, 48 * num_bytes)
    assert 1 < size < 24
    assert size == -(-30 // -(-30 // size))


def test_every_trial_has_a_key_of_its_own_that_is_recorded(tmp_path: Path, expected: list[Line]):
    keys = {tuple(line["trial_key"]) for line in expected}
    assert keys == {tuple(jax.random.key_data(jax.random.fold_in(jax.random.key(0), 0)).tolist())}
    for name, changed in (("trial", {"num_trials": 2}), ("seed", {"seed": 1})):
        config = dataclasses.replace(CONFIG, num_rounds=0, **changed)
        lines = run(tmp_path / name, config)
        assert tuple(lines[-1]["trial_key"]) not in keys


def test_a_warm_start_is_saved_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = toy.RECIPE._replace(warm_start=True, max_epochs=1)
    monkeypatch.setitem(RECIPES, "toy", recipe)
    config = dataclasses.replace(CONFIG, recipe="toy", num_rounds=3)
    whole = run(tmp_path / "whole", config)
    assert run(tmp_path / "stopped", config, num_lines=2) == whole[:2]
    assert run(tmp_path / "stopped", config) == whole
    # From scratch it is another run, from the second round on.
    monkeypatch.setitem(RECIPES, "cold", recipe._replace(warm_start=False))
    cold = run(tmp_path / "cold", dataclasses.replace(config, recipe="cold"))
    assert cold[1]["nll"] != whole[1]["nll"]


def test_the_seed_decides(tmp_path: Path, expected: list[Line]):
    config = dataclasses.replace(CONFIG, seed=1)
    (first,) = run(tmp_path, config, num_lines=1)
    assert first["nll"] != expected[0]["nll"]
    assert first["indices"] != expected[0]["indices"]


def test_the_target_ends_a_trial(tmp_path: Path, expected: list[Line]):
    counts = [line["num_correct"] for line in expected]
    # A round in between that is better than all before it.
    last = next(i for i in range(1, NUM_LINES - 1) if counts[i] > max(counts[:i]))
    config = dataclasses.replace(CONFIG, target_accuracy=expected[last]["accuracy"])
    lines = run(tmp_path, config)
    assert lines == [*expected[:last], expected[last] | NOTHING]
    assert trials.is_finished(results.read_rounds(tmp_path), 0)
    assert run(tmp_path, config) == lines
    # Without the target, the trial goes on.
    assert run(tmp_path) == expected


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Config:
    """An experiment whose learner predicts what is not a number."""

    def sample(key: Any, state: None, x: Any, num_samples: int) -> Any:
        return jnp.full((len(x), num_samples, 10), jnp.nan)

    make_loop = trials.make_loop
    learner = Learner(lambda key, x: None, lambda *_: None, sample)
    monkeypatch.setattr(
        trials, "make_loop", lambda *args: make_loop(*args)._replace(learner=learner)
    )
    return dataclasses.replace(CONFIG, acquisition="bald", num_rounds=2)


def test_a_run_that_acquired_nothing_in_a_round_continues(tmp_path: Path, broken: Config):
    whole = run(tmp_path / "whole", broken)
    assert whole[0]["nll"] is None
    assert whole[-1]["num_acquired"] == 0
    run(tmp_path / "interrupted", broken, num_lines=1)
    assert run(tmp_path / "interrupted", broken) == whole


def test_a_run_that_acquired_nothing_in_a_round_is_drawn(tmp_path: Path, broken: Config):
    lines = run(tmp_path / "results", broken)
    report.draw_learning_curves(tmp_path / "curves.png", {"broken": lines})


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != results.LOCK)
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_the_command_line_reports_a_finished_run_and_leaves_it_alone(
    finished: Path, tmp_path: Path
):
    folder = shutil.copytree(finished, tmp_path / "results")
    command = [*options(CONFIG), f"--output-dir={folder}"]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0
    before = files(folder)
    assert {"rounds.csv", "learning_curve.png", "acquired.png"} <= {path.name for path in before}
    second = CliRunner().invoke(main, command)
    assert second.exit_code == 0
    assert "is finished" in " ".join(second.output.split())
    assert files(folder) == before


def test_the_command_line_says_that_it_continues(damaged: Path, expected: list[Line]):
    result = CliRunner().invoke(main, [*options(CONFIG), f"--output-dir={damaged}"])
    assert result.exit_code == 0, result.output
    assert "continuing" in result.output
    assert "after 3 finished rounds" in " ".join(result.output.split())
    assert lines_of(damaged) == expected


def test_another_configuration_is_refused(finished: Path):
    before = files(finished)
    config = dataclasses.replace(CONFIG, acquisition="bald")
    result = CliRunner().invoke(main, [*options(config), f"--output-dir={finished}"])
    assert result.exit_code == 2
    assert "acquisition is 'batchbald' there and 'bald' now" in " ".join(result.output.split())
    assert files(finished) == before


REPEATS = 3


@pytest.fixture(scope="module")
def repeated(digits: Dataset) -> Dataset:
    return datasets.repeat(digits, num_repeats=REPEATS, noise=0.1, seed=0)


@pytest.mark.parametrize("pool_size", [None, 300])
def test_repeated_images_go_into_the_pool_with_all_their_copies(repeated: Dataset, pool_size: int):
    num_images = len(repeated.y_train) // REPEATS
    split = splits.split(dataclasses.replace(CONFIG, pool_size=pool_size), repeated, trial=0)
    images, counts = np.unique(split.pool % num_images, return_counts=True)
    assert set(counts) == {REPEATS}
    assert len(set(split.pool.tolist())) == len(split.pool) == REPEATS * len(images)
    assert len(split.pool) == (pool_size or REPEATS * (num_images - 200))
    # Copies of validation images are in no pool: they would tell what stops the training.
    assert len(set((split.validation % num_images).tolist())) == len(split.validation) == 200
    assert not set(images) & set(split.validation % num_images)


def test_the_split_comes_from_seed_and_trial(digits: Dataset):
    config = dataclasses.replace(CONFIG, pool_size=100)
    pools = [
        splits.split(dataclasses.replace(config, seed=seed), digits, trial).pool.tolist()
        for seed, trial in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert pools[0] == pools[1]
    assert len(set(map(tuple, pools))) == 3
    assert all(len(set(pool)) == 100 for pool in pools)


def test_a_smaller_pool_keeps_the_validation_set(digits: Dataset):
    small, whole = (
        splits.split(dataclasses.replace(CONFIG, pool_size=size), digits, trial=0)
        for size in (100, None)
    )
    assert small.validation.tolist() == whole.validation.tolist()
    assert set(small.pool) < set(whole.pool)


@pytest.mark.parametrize(
    ("repeats", "changes", "message"),
    [
        (1, {"pool_size": 1001}, "--pool-size 1001: digits has 1000 points for the pool"),
        (1, {"pool_size": 20, "initial_per_class": 9}, "--initial-per-class 9: the pool of 20"),
        (1, {"initial_per_class": 500}, "--initial-per-class 500: the pool of 1000"),
        (3, {"pool_size": 3003}, "--pool-size 3003: repeated-digits has 3000 points"),
        (3, {"pool_size": 301}, "all 3 copies of each; take a multiple, such as 300."),
        (3, {"pool_size": 2}, "all 3 copies of each; take a multiple, such as 3."),
    ],
)
def test_what_the_data_set_cannot_serve_is_refused(
    digits: Dataset, repeated: Dataset, repeats: int, changes: dict, message: str
):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(ConfigError) as caught:
        splits.split(config, repeated if repeats > 1 else digits, trial=0)
    assert message in str(caught.value)


def test_the_whole_pool_is_the_largest(digits: Dataset):
    config = dataclasses.replace(CONFIG, pool_size=1000)
    assert len(splits.split(config, digits, trial=0).pool) == 1000


def test_the_last_trial_is_checked_before_the_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def split(config: Config, dataset: Dataset, trial: int):
        if trial == 1:
            raise ConfigError("trial 1 cannot be served")

    monkeypatch.setattr(trials, "split", split)
    open_folder(tmp_path)
    with pytest.raises(ConfigError, match="trial 1"):
        trials.run(dataclasses.replace(CONFIG, num_trials=2), tmp_path)
    assert lines_of(tmp_path) == []


def test_no_labels_and_no_rounds_are_one_evaluation(tmp_path: Path):
    (line,) = run(tmp_path, dataclasses.replace(CONFIG, initial_per_class=0, num_rounds=0))
    assert line["num_labelled"] == 0
    assert line["indices"] == []


def test_a_batch_drawn_at_random_has_no_score(tmp_path: Path):
    """The network has no label to learn from, and the acquisition function did not choose."""
    cold, _ = run(tmp_path, dataclasses.replace(CONFIG, initial_per_class=0, num_rounds=1))
    assert len(cold["indices"]) == 3
    assert cold["scores"] == cold["gains"] == [None] * 3
    assert cold["remaining_entropy"] == []


def test_features_may_be_kept_elsewhere(tmp_path: Path, digits: Dataset):
    config = dataclasses.replace(CONFIG, learner="logistic-head", features="image")
    few = digits._replace(x_train=digits.x_train[:60], y_train=digits.y_train[:60])
    trials.run(config, tmp_path / "run", few, features_folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FEATURES_FILE]


def test_the_configuration_and_the_versions_are_on_disk(finished: Path):
    content = json.loads((finished / "config.json").read_text())
    assert content["config"] == dataclasses.asdict(CONFIG)
    assert {"python", "jax", "flax", "optax", "numpy"} <= set(content["versions"])
    assert content["device"]


def cut_in_half(state: Path) -> None:
    for path in state.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(state: Path) -> None:
    shutil.rmtree(state)
    state.mkdir()


@pytest.mark.parametrize(
    ("damaged_rounds", "damage", "message"),
    [
        ([3], cut_in_half, "round 3 is damaged; going on from the state after round 2, to"),
        ([2, 3], empty, "round 3 and after round 2 is damaged; going on from the first round, to"),
    ],
)
def test_a_damaged_state_is_said_and_made_good(
    damaged: Path,
    damaged_rounds: list[int],
    damage: Callable[[Path], None],
    message: str,
    expected: list[Line],
    caplog: pytest.LogCaptureFixture,
):
    for round_index in damaged_rounds:
        damage(damaged / "checkpoints" / "trial_0" / str(round_index))
    assert run(damaged) == expected
    (said,) = (r.getMessage() for r in caplog.records if r.name.startswith("bbald_jax"))
    assert message in said


def assert_kept(result: Result, folder: Path, expected: list[Line], num_lines: int) -> int:
    """One line says that the disk is full, and no line is lost; how many there are."""
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert "No space left on device; every finished round is kept" in line
    lines = lines_of(folder)
    assert lines == expected[: len(lines)]
    assert len(lines) >= num_lines
    return len(lines)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be filled."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path, expected: list[Line]):
    folder, filler = small_disk / "results", small_disk / "filler"
    command = [*options(CONFIG), f"--output-dir={folder}"]
    num_lines = 0
    for num_free in (0, 3, 5, 12, 20):  # pages; a state needs about 20
        disk = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, disk.f_bavail - num_free) * disk.f_frsize))
        result = CliRunner().invoke(main, command)
        num_lines = assert_kept(result, folder, expected, num_lines)
        filler.unlink()
    assert num_lines >= 2, "it must have failed in the middle, too"
    assert CliRunner().invoke(main, command).exit_code == 0
    assert lines_of(folder) == expected


def test_a_write_that_fails_loses_nothing(
    tmp_path: Path, expected: list[Line], monkeypatch: pytest.MonkeyPatch
):
    # Without the right to mount: the results' own writes fail, one after another.
    command = [*options(CONFIG), f"--output-dir={tmp_path}"]
    fsync, num_lines = os.fsync, 0
    for num_written in (0, 1, 3, 5, 8):
        written = itertools.count()

        def fill(file: int, written=written, num_written=num_written) -> None:
            if next(written) == num_written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(file)

        monkeypatch.setattr(os, "fsync", fill)
        result = CliRunner().invoke(main, command)
        num_lines = assert_kept(result, tmp_path, expected, num_lines)
        monkeypatch.setattr(os, "fsync", fsync)
    assert num_lines >= 2, "it must have failed in the middle, too"
    assert CliRunner().invoke(main, command).exit_code == 0
    assert lines_of(tmp_path) == expected


def test_a_closed_form_needs_the_head_and_says_so_before_features_are_made(tmp_path: Path):
    config = Config(acquisition="batch-epig-closed", features="graph")
    words = "requires the Gaussian posterior of --learner logistic-head; take that, or batch-epig"
    with pytest.raises(ConfigError, match=words):
        trials.run(config, tmp_path)
    assert not [*tmp_path.iterdir()]
