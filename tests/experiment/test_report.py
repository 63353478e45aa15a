"""Figures and tables of results: quartiles that are trials, counts of labels, pictures."""

import io
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bbald_jax.experiment import report
from bbald_jax.experiment.results import Line


def make_lines(trial: int, counts: list[int], num_test: int = 100, step: int = 10) -> list[Line]:
    """The rounds of a trial, from the correct test points after each."""
    return [
        {
            "trial": trial,
            "round": i,
            "num_labelled": 20 + step * i,
            "num_acquired": step * i,
            "num_correct": count,
            "num_test": num_test,
            "accuracy": count / num_test,
            "nll": 0.25,
            "is_last": i == len(counts) - 1,
            "indices": [] if i == len(counts) - 1 else [2 * i, 2 * i + 1],
            "classes": [] if i == len(counts) - 1 else [i % 10, 9],
            "scores": [] if i == len(counts) - 1 else [0.5, 0.875],
            "gains": [] if i == len(counts) - 1 else [0.5, 0.375],
            "seconds_fit": 1.25,
            "seconds_predict": 0.5,
            "seconds_select": 0.0,
        }
        for i, count in enumerate(counts)
    ]


def trials_that_need(needed: list[float], num_rounds: int = 30) -> list[Line]:
    """One trial for each number of labels, at 90 of 100 points from there on, 89 before."""
    return [
        line
        for trial, labels in enumerate(needed)
        for line in make_lines(trial, [90 if 10 * i >= labels else 89 for i in range(num_rounds)])
    ]


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def read_png(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)
    assert picture.std() > 0.01, "it is blank"
    return picture


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], (5, 5, 5)),
        ([2, 1], (1, 1, 2)),
        ([3, 1, 2], (1, 2, 3)),
        ([40, 10, 30, 20], (10, 20, 30)),
        ([60, 10, 50, 20, 40, 30], (20, 30, 50)),
        ([1, 2, 3, math.inf, math.inf, math.inf], (2, 3, math.inf)),
        ([math.inf] * 3, (math.inf,) * 3),
    ],
)
def test_quartiles_are_trials(values: list[float], expected: tuple[float, ...]):
    assert tuple(report.quartiles(values).tolist()) == expected


def test_quartiles_are_taken_over_the_trials_of_each_round():
    low, median, high = report.quartiles([[1, 10], [2, 30], [3, 20]])
    assert (low.tolist(), median.tolist(), high.tolist()) == ([1, 10], [2, 20], [3, 30])


@pytest.mark.parametrize(
    ("num_trials", "label", "num_curves", "num_bands"),
    [
        (1, "bald", 1, 0),
        (2, "bald: each of 2 trials", 2, 0),
        (4, "bald: each of 4 trials", 4, 0),
        (5, "bald: median and quartiles of 5 trials", 1, 1),
    ],
)
def test_few_trials_are_drawn_themselves(
    num_trials: int, label: str, num_curves: int, num_bands: int
):
    counts = [[10 * trial, 50, 40 + trial] for trial in range(num_trials)]
    lines = [line for trial in range(num_trials) for line in make_lines(trial, counts[trial])]
    axes = Figure().add_subplot()
    report.draw_learning_curve(axes, report.curve_label("bald", lines), lines, color="C3")
    assert [text.get_text() for text in axes.legend().get_texts()] == [label]
    drawn = [np.asarray(curve.get_ydata()).tolist() for curve in axes.get_lines()]
    trials = [[count / 100 for count in each] for each in counts]
    assert drawn == (trials if num_trials < 5 else [trials[2]])  # the median trial of each round
    assert (len(drawn), len(axes.collections)) == (num_curves, num_bands)
    assert {curve.get_color() for curve in axes.get_lines()} == {"C3"}


def test_labels_are_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    report.draw_learning_curves(tmp_path / "x.png", {"bald": make_lines(0, [50, 60], step=1)})
    ticks = drawn[0].axes[0].get_xticks()
    assert np.array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.5, 0), (0.9, 10), (0.91, 30), (0.92, math.inf)]
)
def test_labels_are_counted_until_the_accuracy_is_first_reached(accuracy: float, expected: float):
    assert report.labels_needed(make_lines(0, [50, 90, 80, 91]), accuracy) == [expected]


def test_labels_are_counted_in_whole_test_points():
    lines = make_lines(0, [9_499, 9_500], num_test=10_000)
    assert report.labels_needed(lines, 0.95) == [10]


def test_labels_are_counted_for_each_trial():
    lines = make_lines(0, [95, 95]) + make_lines(1, [5, 5]) + make_lines(2, [5, 95])
    assert report.labels_needed(lines, 0.9) == [0, math.inf, 10]


@pytest.mark.parametrize(
    ("needed", "cell"),
    # Six trials each, whose quartiles are rows of the paper's table.
    [
        ([100, 60, 240, 80, 50, 90], "60 / 80 / 100"),
        ([60, 70, 70, 80, 85, 240], "70 / 70 / 90"),
        ([230, 240, 240, 250, math.inf, math.inf], "240 / 240 / never"),
        ([math.inf] * 6, "never / never / never"),
    ],
)
def test_the_table_of_labels_needed_holds_the_quartiles(needed: list[float], cell: str):
    lines = trials_that_need(needed)
    text = text_of(report.labels_needed_table({"runs/one": lines}, [0.9]))
    (row,) = (line for line in text.splitlines() if "runs/one" in line)
    assert row.split()[:2] == ["runs/one", "6"]
    assert row.strip().endswith(f" {cell}")


@pytest.mark.parametrize(
    ("needed", "cell"),
    [
        ([], "not yet"),
        ([10], "10 / 10 / not yet"),
        ([10, 20], "10 / 20 / not yet"),
        ([10, 30], "10 / not yet / not yet"),  # the one that is not over may need 21 to 29
        ([10, math.inf, math.inf], "10 / not yet / never"),
    ],
)
def test_what_an_unfinished_trial_may_still_change_is_not_yet_known(needed: list[float], cell: str):
    lines = trials_that_need(needed)
    unfinished = make_lines(9, [5, 5, 5])  # 20 acquired
    unfinished[-1]["is_last"] = False
    text = text_of(report.labels_needed_table({"runs/one": [*lines, *unfinished]}, [0.9]))
    (row,) = (line for line in text.splitlines() if "runs/one" in line)
    assert row.strip().endswith(f" {cell}")


def test_the_table_of_labels_needed_has_a_row_a_run_and_a_column_an_accuracy():
    runs = {"one": make_lines(0, [10, 50, 90]), "two": make_lines(0, [20, 95, 94])}
    text = text_of(report.labels_needed_table(runs, [0.5, 0.9, 0.999]))
    (header,) = (line for line in text.splitlines() if "trials" in line and "run" in line)
    assert header.replace(" %", "%").split()[-3:] == ["50%", "90%", "99.9%"]
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["one"], ["two"])]
    assert rows == [
        ["one", "1", "90.00%", "10", "20", "never"],
        ["two", "1", "95.00%", "10", "10", "never"],
    ]


def test_the_table_of_rounds_has_a_row_a_round():
    lines = make_lines(1, [50, 90])
    lines[1]["nll"] = None
    *_, first, last = text_of(report.rounds_table(lines)).rstrip().splitlines()
    assert " ".join(first.split()) == "1 0 20 50.00% 50 0.250 0.875 1.2 0.5 0.0"
    assert " ".join(last.split()) == "1 1 30 90.00% 90 - - 1.2 0.5 0.0"


def test_learning_curves_are_a_picture(tmp_path: Path):
    path = tmp_path / "curves.png"
    runs = {"one": make_lines(0, [50, 70, 90]), "six": trials_that_need([10, 20, 30, 40, 50, 60])}
    report.draw_learning_curves(path, runs)
    height, width, _ = read_png(path).shape
    assert 400 < height < width < 2000


def spy_on_curves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list, list]]:
    from matplotlib.axes import Axes

    curves: list[tuple[list, list]] = []
    plot = Axes.plot

    def spy(self: Axes, x, y, **kwargs):
        curves.append((list(x), np.asarray(y).tolist()))
        return plot(self, x, y, **kwargs)

    monkeypatch.setattr(Axes, "plot", spy)
    return curves


def test_the_curve_is_the_median_over_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    curves = spy_on_curves(monkeypatch)
    counts = [[10, 20], [30, 60], [50, 40], [0, 0], [90, 90]]
    lines = [line for trial, c in enumerate(counts) for line in make_lines(trial, c)]
    report.draw_learning_curves(tmp_path / "curves.png", {"run": lines})
    assert curves == [([0, 10], [0.3, 0.4])]


def test_the_curve_ends_where_the_first_trial_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    curves = spy_on_curves(monkeypatch)
    counts = [[10, 20, 90], *([[10, 90]] * 2), *([[10, 20]] * 2)]
    lines = [line for trial, c in enumerate(counts) for line in make_lines(trial, c)]
    report.draw_learning_curves(tmp_path / "curves.png", {"run": lines})
    assert curves == [([0, 10], [0.1, 0.2])]


def test_names_are_no_mathematics(tmp_path: Path):
    report.draw_learning_curves(tmp_path / "curves.png", {"$5_$": make_lines(0, [50] * 2)})
    read_png(tmp_path / "curves.png")


IMAGES = np.random.default_rng(0).random((100, 8, 8, 1))


@pytest.mark.parametrize("num_rounds", [0, 1, 4])
def test_acquired_points_are_a_picture(tmp_path: Path, num_rounds: int):
    path = tmp_path / "acquired.png"
    report.draw_acquired(path, make_lines(0, [50] * (num_rounds + 1)), IMAGES, "a title")
    height, width, _ = read_png(path).shape
    assert 100 < height < 1000
    assert 100 < width < 1000


def test_each_acquired_point_is_drawn_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "imshow", lambda self, image, **kwargs: drawn.append(image))
    report.draw_acquired(tmp_path / "acquired.png", make_lines(0, [50] * 4), IMAGES, "")
    np.testing.assert_array_equal(drawn, IMAGES[[0, 1, 2, 3, 4, 5], ..., 0])


def test_images_of_three_channels_are_drawn_in_colour_and_classes_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from matplotlib.axes import Axes

    drawn, titles = [], []
    monkeypatch.setattr(Axes, "imshow", lambda self, image, **kwargs: drawn.append(image))
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **kwargs: titles.append(text))
    names = [*"abcdefghi", "$2 or more dollars"]
    images = IMAGES.repeat(4, axis=-1)
    images[1] = 3 * images[1] - 1  # normalised in some way
    report.draw_acquired(tmp_path / "acquired.png", make_lines(0, [50] * 2), images, "$", names)
    np.testing.assert_array_equal(drawn[0], images[0, ..., :3])
    assert drawn[1].shape == (8, 8, 3)
    assert drawn[1].min() >= 0
    assert drawn[1].max() == 1
    assert titles == ["a", "$2 or mor"]
    report.draw_acquired(tmp_path / "acquired.png", make_lines(0, [50] * 2), images[..., :2], "")
    np.testing.assert_array_equal(drawn[2], images[0, ..., 0])


def test_a_huge_batch_makes_no_huge_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A plot a point takes minutes to lay out from some hundreds on, and forever from a thousand.
    from matplotlib.figure import Figure

    plots = []
    add_subplot = Figure.add_subplot

    def count(self: Figure, *args, **kwargs):
        plots.append(args)
        assert len(plots) <= 400
        return add_subplot(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "add_subplot", count)
    (line, last) = make_lines(0, [50, 50])
    line |= {"indices": list(range(1000)), "classes": [3] * 1000}
    images = np.zeros((1000, 8, 8, 1))
    report.draw_acquired(tmp_path / "acquired.png", [line, last], images, "huge")
    height, width, _ = read_png(tmp_path / "acquired.png").shape
    assert max(height, width) < 10_000


def test_a_batch_that_is_not_full_is_drawn(tmp_path: Path):
    lines = make_lines(0, [50] * 3)
    lines[1] |= {"indices": [7], "classes": [1]}
    report.draw_acquired(tmp_path / "acquired.png", lines, IMAGES, "")
    read_png(tmp_path / "acquired.png")


def test_only_the_first_rounds_of_many_are_drawn(tmp_path: Path):
    path = tmp_path / "acquired.png"
    report.draw_acquired(path, make_lines(0, [50] * 41), IMAGES, "many")
    many = read_png(path).shape
    report.draw_acquired(path, make_lines(0, [50] * 21), IMAGES, "many")
    assert read_png(path).shape == many


@pytest.mark.parametrize(
    ("gains", "remaining", "is_arbitrary"),
    [
        ([0.5, 0.375], [], False),
        ([0.5, 0.5 + 1e-7], [], False),  # copies of one good point
        ([2e-7, -1e-7], [], True),
        ([0.5], [], False),
        ([None, None], [], False),
        ([5e-6, 1e-6], [2.9, 2.9], True),  # the rounding of a joint function
        ([5e-5, 1e-6], [2.9, 2.9], False),
    ],
)
def test_rounds_whose_gains_are_rounding_are_counted(
    gains: list[float], remaining: list[float], is_arbitrary: bool
):
    lines = make_lines(0, [80, 81, 82])
    for line in lines:
        line["remaining_entropy"] = []
    lines[1] |= {"gains": gains, "scores": gains, "remaining_entropy": remaining}
    text = report.spent_samples(lines, num_samples=20)
    assert (text is not None) == is_arbitrary
    if text:
        assert text.startswith("In 1 of 2 rounds no point of the batch had a score above rounding")
        assert "first in trial 0, round 1" in text
        assert "Raise --num-samples, which is 20" in text


def test_no_number_of_samples_is_named_that_would_be_absurd():
    lines = make_lines(0, [80, 81])
    lines[0] |= {"remaining_entropy": [0.05, 0.01], "indices": list(range(20))}
    lines[1] |= {"remaining_entropy": []}
    text = report.spent_samples(lines, num_samples=20)
    assert text
    assert "--num-samples would have to be 10,000 or more, so lower --acquisition-size" in text
