"""The results folder: opened once, refused otherwise, and read back line by line."""

import csv
import json
import math
from pathlib import Path

import pytest
from runs import make_line

from bbald_jax.experiment import results
from bbald_jax.experiment.results import ResultsError

CONFIG = {
    "dataset": "digits",
    "seed": 0,
    "num_rounds": 2,
    "num_trials": 1,
    "target_accuracy": None,
}
ENVIRONMENT = {"versions": {"jax": "1.2.3"}, "device": "cpu"}
LINES = [
    {**make_line(i, is_last=i == 2), "nll": 0.1 * i, "indices": [3 * i, 7] if i < 2 else []}
    for i in range(3)
]


def fail(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two finished rounds."""
    folder = tmp_path / "results"
    results.open_folder(folder, CONFIG, ENVIRONMENT)
    for line in LINES[:2]:
        results.append_round(folder, line)
    return folder


def test_a_new_folder_is_made_and_explains_itself(tmp_path: Path):
    folder = tmp_path / "deep" / "results"
    assert not results.open_folder(folder, CONFIG, ENVIRONMENT)
    assert json.loads((folder / "config.json").read_text()) == {"config": CONFIG, **ENVIRONMENT}
    assert results.read_config(folder) == CONFIG
    assert results.read_environment(folder) == ENVIRONMENT
    assert results.read_rounds(folder) == []


def test_an_empty_folder_may_be_used(tmp_path: Path):
    assert not results.open_folder(tmp_path, CONFIG, ENVIRONMENT)


def test_the_same_configuration_continues(folder: Path):
    other_environment = {**ENVIRONMENT, "device": "gpu"}
    before = (folder / "config.json").read_bytes()
    assert results.open_folder(folder, CONFIG, other_environment)
    assert (folder / "config.json").read_bytes() == before
    assert results.read_rounds(folder) == LINES[:2]


def test_a_folder_from_before_there_were_learners_goes_on(folder: Path):
    now = {**CONFIG, "learner": "dropout-network", "features": "none"}
    assert results.open_folder(folder, now, ENVIRONMENT)
    with pytest.raises(ResultsError, match="learner is 'dropout-network' there and 'x' now"):
        results.open_folder(folder, {**now, "learner": "x"}, ENVIRONMENT)


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        ({**CONFIG, "seed": 1}, "seed is 0 there and 1 now"),
        ({**CONFIG, "seed": 3, "num_rounds": 9}, "configuration: seed is 0 there and 3 now. Give"),
        ({**CONFIG, "recipe": "new"}, "recipe is None there and 'new' now"),
        ({**CONFIG, "seed": 2, "dataset": "mnist"}, "dataset is 'digits' there and 'mnist' now; s"),
    ],
)
def test_another_configuration_is_refused_by_name(folder: Path, config: dict, difference: str):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ResultsError) as caught:
        results.open_folder(folder, config, ENVIRONMENT)
    assert difference in str(caught.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def over(tmp_path: Path) -> Path:
    """A folder with all rounds of a run of two trials, and the table that is drawn last."""
    folder = tmp_path / "over"
    results.open_folder(folder, {**CONFIG, "num_trials": 2}, ENVIRONMENT)
    lines = [make_line(i, is_last=i == 2, trial=trial) for trial in range(2) for i in range(3)]
    results.write_rounds(folder, lines)
    results.write_table(folder, lines)
    return folder


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"num_rounds": 3}, [0, 1, 0, 1]),
        ({"num_trials": 5}, [0, 1, 2, 0, 1, 2]),
        # Of 597 points the rounds had 300, 400 and 500 right: 0.67 is 400, 0.68 more.
        ({"num_rounds": 3, "target_accuracy": 0.68}, [0, 1, 2, 0, 1, 2]),
        ({"num_rounds": 3, "target_accuracy": 0.9}, [0, 1, 0, 1]),
    ],
)
def test_a_run_that_is_extended_keeps_its_first_part(over: Path, change: dict, left: list[int]):
    config = {**CONFIG, "num_trials": 2, **change}
    before = results.read_rounds(over)
    assert results.open_folder(over, config, {**ENVIRONMENT, "device": "gpu"})
    assert results.read_config(over) == config
    assert results.read_environment(over) == ENVIRONMENT  # with which it was started
    lines = results.read_rounds(over)
    assert [line["round"] for line in lines] == left
    assert all(line in before for line in lines)
    assert not (over / "rounds.csv").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_rounds": 1}, "holds round 1 of trial 0, and --num-rounds is 1 now"),
        ({"num_trials": 1}, "holds round 0 of trial 1, and --num-trials is 1 now"),
        (
            {"num_rounds": 9, "target_accuracy": 0.67},
            "round 1 of trial 0, which reached 67.00% and went on, and --target-accuracy is 0.67",
        ),
    ],
)
def test_a_run_is_not_shortened(over: Path, change: dict, problem: str):
    before = {path: path.read_bytes() for path in over.iterdir()}
    with pytest.raises(ResultsError, match="extended, not shortened") as caught:
        results.open_folder(over, {**CONFIG, "num_trials": 2, **change}, ENVIRONMENT)
    assert problem in str(caught.value)
    assert {path: path.read_bytes() for path in over.iterdir()} == before


def test_rounds_that_are_not_run_yet_can_be_cancelled(folder: Path):
    results.open_folder(folder, {**CONFIG, "num_rounds": 9}, ENVIRONMENT)
    assert results.open_folder(folder, CONFIG, ENVIRONMENT)
    assert results.read_rounds(folder) == LINES[:2]


@pytest.mark.parametrize("num_written", [0, 1])
def test_a_kill_while_a_run_is_extended_loses_nothing(
    over: Path, monkeypatch: pytest.MonkeyPatch, num_written: int
):
    """Rounds, then configuration: either command goes on from what is left."""
    write, written = results.write_atomically, []

    def killed(path: Path, text: str) -> None:
        if len(written) == num_written:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, text)

    shorter, longer = ({**CONFIG, "num_trials": 2, "num_rounds": r} for r in (2, 4))
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            results.open_folder(over, longer, ENVIRONMENT)
    assert written == ["rounds.jsonl"][:num_written]
    acquired = [line for line in results.read_rounds(over) if not line["is_last"]]
    assert [line["round"] for line in acquired] == [0, 1, 0, 1]
    for config in (shorter, longer):
        assert results.open_folder(over, config, ENVIRONMENT)
        assert [x for x in results.read_rounds(over) if not x["is_last"]] == acquired


def test_a_folder_without_a_finished_round_is_started_anew(tmp_path: Path):
    results.open_folder(tmp_path, CONFIG, ENVIRONMENT)
    (tmp_path / "rounds.jsonl").write_text('{"trial": 0, "ro')
    assert not results.open_folder(tmp_path, {**CONFIG, "seed": 5}, ENVIRONMENT)
    assert results.read_config(tmp_path)["seed"] == 5


@pytest.mark.parametrize("name", ["thesis.tex", "rounds.jsonl", "data"])
def test_a_foreign_folder_is_refused(tmp_path: Path, name: str):
    if name == "data":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text('{"not": "ours"}\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ResultsError, match="no results folder"):
        results.open_folder(tmp_path, CONFIG, ENVIRONMENT)
    assert sorted(tmp_path.iterdir()) == before


def test_a_lock_is_for_one_and_leaves_foreign_folders_alone(tmp_path: Path):
    with results.locked(tmp_path / "results"):
        assert not results.open_folder(tmp_path / "results", CONFIG, ENVIRONMENT)
        with (
            pytest.raises(ResultsError, match=r"results is in use by another process"),
            results.locked(tmp_path / "results"),
        ):
            pass
    with results.locked(tmp_path / "results"):
        pass
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ResultsError, match="no results folder"), results.locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_kill_before_the_configuration_is_no_obstacle(tmp_path: Path):
    (tmp_path / "lock").touch()
    (tmp_path / "config.json.tmp").write_text('{"conf')
    assert not results.open_folder(tmp_path, CONFIG, ENVIRONMENT)
    assert results.read_config(tmp_path) == CONFIG


def test_a_file_is_no_folder(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ResultsError, match="is a file"):
        results.open_folder(path, CONFIG, ENVIRONMENT)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_configuration_is_an_error(folder: Path, text: str):
    (folder / "config.json").write_text(text)
    with pytest.raises(ResultsError, match=r"config\.json is damaged"):
        results.read_config(folder)
    with pytest.raises(ResultsError, match=r"config\.json is damaged"):
        results.open_folder(folder, CONFIG, ENVIRONMENT)


def test_a_line_cut_short_is_left_out(folder: Path):
    with open(folder / "rounds.jsonl", "a") as file:
        file.write(json.dumps(LINES[2])[:-3])
    assert results.read_rounds(folder) == LINES[:2]


def test_a_damaged_line_is_named(folder: Path):
    text = (folder / "rounds.jsonl").read_text()
    (folder / "rounds.jsonl").write_text(text.replace('{"trial"', '"trial"', 1))
    with pytest.raises(ResultsError, match="line 1 is damaged"):
        results.read_rounds(folder)


def test_a_line_that_is_no_text_is_named(folder: Path):
    (folder / "rounds.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ResultsError, match="line 1 is damaged"):
        results.read_rounds(folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3", "is no object"),
        ("[]", "is no object"),
        ("{}", "has no 'trial'"),
        (json.dumps({**LINES[1], "trial": "0"}), "has '0' as 'trial'"),
        (json.dumps({**LINES[1], "round": True}), "has True as 'round'"),
        (json.dumps({**LINES[1], "num_test": -1}), "has -1 as 'num_test'"),
        (json.dumps({**LINES[1], "is_last": 0}), "has 0 as 'is_last'"),
        (json.dumps({**LINES[1], "indices": [1.5]}), "has [1.5] as 'indices'"),
        (json.dumps({**LINES[1], "scores": None}), "has None as 'scores'"),
        (json.dumps({k: v for k, v in LINES[1].items() if k != "nll"}), "has no 'nll'"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_line_that_somebody_edited_is_named(folder: Path, text: str, problem: str):
    results.append_round(folder, LINES[2])
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    (folder / "rounds.jsonl").write_text("\n".join([lines[0], text, lines[2]]) + "\n")
    with pytest.raises(ResultsError) as caught:
        results.read_rounds(folder)
    assert f"rounds.jsonl line 2 is damaged: it {problem}; restore it" in str(caught.value)


def test_lines_are_replaced_all_at_once(folder: Path):
    results.write_rounds(folder, LINES)
    assert results.read_rounds(folder) == LINES
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "rounds.jsonl"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_becomes_null(folder: Path, value: float):
    line = {"nll": value, "scores": [0.5, value], "more": {"deep": [value, 1]}}
    results.append_round(folder, line)
    last = (folder / "rounds.jsonl").read_text().splitlines()[-1]
    expected = {"nll": None, "scores": [0.5, None], "more": {"deep": [None, 1]}}
    assert json.loads(last, parse_constant=fail) == expected


def test_numbers_survive_bit_for_bit(folder: Path):
    line = {**LINES[0], "nll": 0.1 + 0.2, "scores": [1 / 3, 1e-300]}
    results.append_round(folder, line)
    assert results.read_rounds(folder)[-1] == line


def test_the_table_holds_the_same_rounds(folder: Path):
    results.write_table(folder, LINES)
    with open(folder / "rounds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    assert [row["indices"] for row in rows] == ["0 7", "3 7", ""]
    assert [float(row["nll"]) for row in rows] == [line["nll"] for line in LINES]


@pytest.mark.parametrize(
    ("accuracy", "num_test", "expected"),
    [
        (0.95, 10_000, 9_500),
        (0.9, 597, 538),  # 537.3
        (1.0, 597, 597),
        (0.07, 100, 7),  # 0.07 * 100 is above 7 in floats
        (0.0001, 10, 1),
        (2 / 3, 3, 2),
    ],
)
def test_accuracies_are_counted_in_whole_points(accuracy: float, num_test: int, expected: int):
    assert results.num_correct_for(accuracy, num_test) == expected
