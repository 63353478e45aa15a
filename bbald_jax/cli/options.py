"""What options accept: ranges of numbers, and names.

The names stand here once more, because what defines them loads JAX, half a second before
`bbald --help` could answer. A test compares them.
"""

import math
import os
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """click lets NaN and infinity through any range."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """A finite number in the range, or the refusal."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class NameOrPath(click.Choice):
    """One of the names, or a file or folder that is there."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The name, or the path as typed."""
        if value in self.choices or os.path.exists(value):
            return value
        self.fail(
            f"{value!r} is no data set ({', '.join(self.choices)}), and no file or folder of that "
            "name is there.",
            param,
            ctx,
        )

    def get_metavar(self, *args: Any, **kwargs: Any) -> str | None:
        """The names, and that a path will do."""
        return f"[{'|'.join(self.choices)}|PATH]"


POSITIVE = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=2**32 - 1)
FRACTION = FiniteRange(min=0, max=1, min_open=True)

#: `bb.catalogue()`.
ACQUISITIONS = (
    "random",
    "predictive-entropy",
    "margin",
    "variation-ratio",
    "mean-std",
    "bald",
    "batchbald",
    "power-bald",
    "softmax-bald",
    "softrank-bald",
    "epig",
    "kbald",
    "gaussian-batchbald",
    "batch-epig",
    "gaussian-batchbald-closed",
    "batch-epig-closed",
    "weighted-epig-closed",
    "badge",
    "coreset",
    "bait",
    "typiclust",
)
#: `experiment.datasets.DATASETS`.
DATASETS = ("digits", "mnist", "repeated-mnist", "fashion-mnist")
#: `experiment.learners.LEARNERS`.
LEARNERS = ("dropout-network", "logistic-head")
#: `experiment.feature_files.KINDS`.
FEATURES = ("none", "graph", "image", "text", "image+graph")
#: `validation.Kind`.
KINDS = ("probs", "logits", "log-probs")
#: `cli.prediction_files.LISTS`.
LISTS = (".txt", ".csv", ".npy")
#: `learning.recipes.RECIPES`.
RECIPES = ("paper", "augmented", "augmented-warm")


def class_names(listed: str | None) -> list[str]:
    """The names in a list such as "cat, dog"."""
    return [name.strip() for name in (listed or "").split(",") if name.strip()]
