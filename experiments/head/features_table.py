"""Accuracy against random labels, for every kind of features and a few learners.

    python -m experiments.head.features_table [--datasets digits --num-pools 2 --output /tmp/out]

Pool of labels s, s = 0 to 9 fixed beforehand: the first n of one permutation of the training
points, so that its labels are nested; the same for all features and learners. Features are made of
all training points, without labels, and kept in `results/`; those of the encoder are what
`experiments.head.encoder` left there. The same command again goes on where it was interrupted: what
is in `features.csv` is not run again.
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from safetensors.numpy import load_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from bbald_jax.experiment.config import Config
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.experiment.feature_files import Features, load_or_make
from bbald_jax.experiment.learners import make_learner
from bbald_jax.learning.learner import Learner
from bbald_jax.pool import Labelled
from experiments.common import reporting
from experiments.head import encoder

OUTPUT = Path(__file__).parents[1] / "results" / "head"
DATASETS = ("digits", "mnist", "fashion-mnist")
NUM_LABELS = (10, 20, 50, 100, 200)
NUM_POOLS = 10
NUM_SAMPLES = 100
KINDS = ("none", "image", "graph", "image+graph", "encoder", "encoder+graph")
HEAD, REGRESSION, FOREST, NETWORK = (
    "logistic head (MAP)",
    "logistic regression, C = 1",
    "random forest",
    "MC-dropout network",
)
#: On which features each learner is tried; the network takes the images.
TRIED = {
    HEAD: KINDS,
    REGRESSION: ("none", "image", "image+graph"),
    FOREST: ("none", "image", "image+graph"),
    NETWORK: ("images",),
}
CONFIGS = {HEAD: Config(learner="logistic-head"), NETWORK: Config(recipe="paper")}
#: Pools and numbers of labels for the network, which takes minutes a fit on 28 x 28 pixels.
NETWORK_SIZES = {"digits": (NUM_POOLS, NUM_LABELS), "mnist": (3, (20, 50, 200))}

COLUMNS = ("dataset", "features", "learner", "labels", "seed", "num_correct", "num_test")
Run = tuple[str, str, str, int, int]
Predict = Callable[[int, np.ndarray], np.ndarray]


def features(dataset: Dataset, kind: str) -> Features:
    """`[N, D]` and `[N_test, D]`; the images themselves for the network."""
    x, x_test = dataset.x_train, dataset.x_test
    if kind == "images":
        return x, x_test
    path = encoder.FOLDER / f"{dataset.name}_{kind}.safetensors"
    path.parent.mkdir(exist_ok=True)
    if kind == "encoder":
        if not path.exists():
            command = f"python -m {reporting.module(encoder.__file__)} --dataset {dataset.name}"
            sys.exit(f"{path} is not there; make it by {command}")
        there = load_file(path)
        return there["train"], there["test"]
    if kind == "encoder+graph":
        return load_or_make(path, "graph", *features(dataset, "encoder"))
    return load_or_make(path, kind, x, x_test)


def through(learner: Learner, made: Features, y: np.ndarray) -> Predict:
    """Classes of the test points by a `Learner`; one compilation serves all numbers of labels."""
    x, x_test = map(jnp.asarray, made)
    none = Labelled(x[:0], jnp.zeros(0, jnp.int32), jnp.int32(0))

    def predict(seed: int, chosen: np.ndarray) -> np.ndarray:
        init_key, fit_key, sample_key = jax.random.split(jax.random.key(seed), 3)
        rows = np.zeros(NUM_LABELS[-1], int)
        rows[: len(chosen)] = chosen
        labelled = Labelled(x[rows], jnp.asarray(y[rows]), jnp.int32(len(chosen)))
        state = learner.fit(fit_key, learner.init(init_key, x), labelled, none)
        if learner.predict is not None:
            return np.asarray(learner.predict(state, x_test)).argmax(axis=1)
        log_probs = learner.sample(sample_key, state, x_test, NUM_SAMPLES)
        return np.asarray(jax.nn.logsumexp(log_probs, axis=1)).argmax(axis=1)

    return predict


def through_sklearn(make: Callable[[int], object], made: Features, y: np.ndarray) -> Predict:
    """Classes of the test points by an estimator of scikit-learn."""
    x, x_test = made

    def predict(seed: int, chosen: np.ndarray) -> np.ndarray:
        return make(seed).fit(x[chosen], y[chosen]).predict(x_test)  # pyright: ignore

    return predict


def make_predict(name: str, dataset: Dataset, made: Features) -> Predict:
    """What a learner says, given the seed of a pool of labels and these labels' points."""
    y = dataset.y_train
    if name in CONFIGS:
        return through(make_learner(CONFIGS[name], dataset), made, y)
    if name == REGRESSION:
        return through_sklearn(lambda seed: LogisticRegression(C=1.0, max_iter=1000), made, y)
    return through_sklearn(lambda seed: RandomForestClassifier(100, random_state=seed), made, y)


def wanted(dataset: str, kind: str, learner: str, num_pools: int) -> Iterator[Run]:
    """All runs of a learner on some features."""
    if dataset == "digits" and kind.startswith("encoder"):
        return
    sizes = (NUM_POOLS, NUM_LABELS)
    if learner == NETWORK:
        sizes = NETWORK_SIZES.get(dataset, (0, ()))
    for seed in range(min(sizes[0], num_pools)):
        yield from ((dataset, kind, learner, n, seed) for n in sizes[1])


def read(path: Path) -> dict[Run, float]:
    """The accuracy of each run that is there."""
    if not path.exists():
        return {}
    with open(path) as file:
        return {
            (
                row["dataset"],
                row["features"],
                row["learner"],
                int(row["labels"]),
                int(row["seed"]),
            ): (int(row["num_correct"]) / int(row["num_test"]))
            for row in csv.DictReader(file)
        }


def run_all(path: Path, datasets: list[str], num_pools: int) -> None:
    """Run what is not in the file, and add a line for each run as it ends."""
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    for learner, kinds in TRIED.items():
        for name in datasets:
            dataset = load_dataset(name)
            for kind in kinds:
                there = read(path)
                left = [r for r in wanted(name, kind, learner, num_pools) if r not in there]
                if not left:
                    continue
                predict = make_predict(learner, dataset, features(dataset, kind))
                for *_, num_labels, seed in left:
                    order = np.random.default_rng(seed).permutation(len(dataset.y_train))
                    classes = predict(seed, order[:num_labels])
                    num_correct = int((classes == dataset.y_test).sum())
                    line = (name, kind, f'"{learner}"', num_labels, seed)
                    with open(path, "a") as file:
                        print(*line, num_correct, len(classes), sep=",", file=file)
                reporting.progress(f"{name}, {kind}, {learner}: {len(left)} runs")


def group(accuracies: dict[Run, float]) -> dict[tuple[str, str, str], dict[int, np.ndarray]]:
    """For each data set, features and learner: accuracies of the pools at each number of labels."""
    found = defaultdict(lambda: defaultdict(list))
    for (dataset, kind, learner, num_labels, _), accuracy in accuracies.items():
        found[dataset, kind, learner][num_labels].append(accuracy)
    return {
        key: {n: np.array(values) for n, values in sorted(by_labels.items())}
        for key, by_labels in found.items()
    }


def cell(values: np.ndarray | None) -> str:
    """Mean and standard error, in per cent, and how many pools where they are not all."""
    if values is None:
        return ""
    text = f"{values.mean():.1%}".rstrip("%")
    if len(values) > 1:
        text += f" ± {100 * values.std(ddof=1) / np.sqrt(len(values)):.1f}"
    return text if len(values) == NUM_POOLS else f"{text} ({len(values)} pools)"


def present(found: dict) -> list[str]:
    """The data sets of which there are runs."""
    there = {dataset for dataset, _, _ in found}
    return [name for name in DATASETS if name in there]


def section(dataset: str, found: dict) -> str:
    """A table: features and learners down, numbers of labels across."""
    rows = []
    for learner, kinds in TRIED.items():
        for kind in kinds:
            if by_labels := found.get((dataset, kind, learner)):
                rows.append([kind, learner, *(cell(by_labels.get(n)) for n in NUM_LABELS)])
    header = ["features", "learner", *(f"{n} labels" for n in NUM_LABELS)]
    return f"## {dataset}\n\n{reporting.table(header, rows)}"


def draw(path: Path, found: dict) -> None:
    """A panel a data set: a curve for each kind of features with the head, and the network."""
    datasets = present(found)
    figure = Figure(figsize=(4.4 * len(datasets), 4.4), layout="constrained")
    panels = figure.subplots(1, len(datasets), sharex=True, squeeze=False)[0]
    curves = [(kind, HEAD, f"C{i}", "-") for i, kind in enumerate(KINDS)]
    curves.append(("images", NETWORK, "black", "--"))
    for axes, dataset in zip(panels, datasets, strict=True):
        for kind, learner, colour, style in curves:
            by_labels = found.get((dataset, kind, learner))
            if not by_labels:
                continue
            means = [values.mean() for values in by_labels.values()]
            errors = [
                values.std() / max(1, len(values) - 1) ** 0.5 for values in by_labels.values()
            ]
            label = kind if learner == HEAD else f"{learner} on {kind}"
            axes.errorbar(
                list(by_labels),
                means,
                errors,
                fmt=style,
                color=colour,
                label=label,
                lw=1.3,
                capsize=2,
            )
        axes.set_title(dataset, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(NUM_LABELS, [str(n) for n in NUM_LABELS])
        axes.minorticks_off()
        axes.set_xlabel("random labels")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    panels[0].set_ylabel("test accuracy")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--num-pools", type=int, default=NUM_POOLS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "features.csv"
    run_all(path, arguments.datasets, arguments.num_pools)
    found = group(read(path))
    draw(arguments.output / "features.png", found)
    reporting.write(
        arguments.output / "features.md",
        "# Accuracy against random labels, by features and learner",
        f"Made by `python -m {reporting.module(__file__)}`, after `python -m "
        "experiments.head.encoder` for MNIST and Fashion-MNIST. Test accuracy in per cent, means ± "
        f"standard errors over {NUM_POOLS} pools of random labels (seeds 0 to {NUM_POOLS - 1}, "
        "fixed beforehand; the same for all rows). Every run is in [features.csv](features.csv).",
        "![Test accuracy against labels, the head on each kind of features](features.png)",
        *(section(name, found) for name in present(found)),
        "The network has the paper's recipe, but no labels for validation: 30 epochs of 5,056 "
        f"draws, and the mean of {NUM_SAMPLES} posterior samples. It takes minutes a fit on two "
        "cores: on MNIST there are 3 pools at three numbers of labels, on Fashion-MNIST none.",
        reporting.machine("bbald_jax", "jax", "scikit-learn", "scikit-image", "faiss-cpu", "scipy"),
    )


if __name__ == "__main__":
    main()
