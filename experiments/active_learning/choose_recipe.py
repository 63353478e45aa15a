"""How the recipe `augmented` was chosen: validation accuracy of its variants, on MNIST.

    python -m experiments.active_learning.choose_recipe

Only training images are used: seed s draws 60 of them to fit to, and 5,000 others to validate on;
the test set is never loaded into a network. Writes `results/learner/recipe.md`.
`--num-seeds 1 --output /tmp/out` tries the script.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.learning.chunks import map_chunks
from bbald_jax.pool import Labelled
from experiments.common import reporting

NUM_LABELLED, NUM_VALIDATION = 60, 5000
OUTPUT = Path(__file__).parents[1] / "results" / "learner"

NONE = bb.Augmentation(shift=0, rotation=0, scale=0, shear=0, elastic=0)
FULL = bb.Augmentation(shift=2 / 28, rotation=0.2, scale=0.1, shear=0.15, elastic=1 / 28)
#: Where the search began.
START = bb.AUGMENTED._replace(
    batch_size=32, steps_per_epoch=1106, learning_rate=1e-3, augmentation=FULL, ema_decay=0.995
)
#: What each variant changes in it.
VARIANTS = {
    "1,106 steps of 32, all deformations": {},
    "no deformation": {"augmentation": None},
    "shift only": {"augmentation": NONE._replace(shift=FULL.shift)},
    "affine only": {"augmentation": FULL._replace(elastic=0)},
    "elastic only": {"augmentation": NONE._replace(elastic=FULL.elastic)},
    "half of each deformation": {"augmentation": bb.Augmentation(*(0.5 * x for x in FULL))},
    "1.5 times each deformation": {"augmentation": bb.Augmentation(*(1.5 * x for x in FULL))},
    "no average of the parameters": {"ema_decay": 0.0},
    "twice the learning rate": {"learning_rate": 2e-3},
    "553 steps": {"steps_per_epoch": 553},
    "2,212 steps": {"steps_per_epoch": 2212},
    "1,106 steps of 64": {"batch_size": 64},
    "2,212 steps of 16": {"batch_size": 16, "steps_per_epoch": 2212},
}


def validation_accuracies(
    recipe: bb.Recipe, x: np.ndarray, y: np.ndarray, num_seeds: int
) -> list[float]:
    """Of the deterministic network, fitted to the images that each seed draws."""
    model = bb.flax_model(bb.PaperCNN(10))
    learner = bb.mc_dropout_learner(model, recipe)

    @jax.jit
    def predict(params, x):
        return map_chunks(lambda x: model.apply(params, x), x, chunk_size=256)

    accuracies = []
    for seed in range(num_seeds):
        split_key, init_key, fit_key = jax.random.split(jax.random.key(seed), 3)
        order = np.asarray(jax.random.permutation(split_key, len(y)))
        fit, held_out = np.split(order[: NUM_LABELLED + NUM_VALIDATION], [NUM_LABELLED])
        labelled = Labelled(jnp.asarray(x[fit]), jnp.asarray(y[fit]), jnp.int32(NUM_LABELLED))
        nothing = Labelled(labelled.x[:0], labelled.y[:0], jnp.int32(0))
        params = learner.fit(fit_key, learner.init(init_key, labelled.x), labelled, nothing)
        predicted = np.argmax(predict(params, jnp.asarray(x[held_out])), axis=-1)
        accuracies.append(float(np.mean(predicted == y[held_out])))
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    data = load_mnist()
    rows = []
    for name, changes in VARIANTS.items():
        recipe = START._replace(**changes)
        accuracies = validation_accuracies(recipe, data.x_train, data.y_train, arguments.num_seeds)
        reporting.progress(f"{name}: {np.mean(accuracies):.2%}")
        rows.append([name, f"{np.mean(accuracies):.2%}", *(f"{x:.2%}" for x in accuracies)])
    seeds = [f"seed {seed}" for seed in range(arguments.num_seeds)]
    reporting.write(
        arguments.output / "recipe.md",
        f"# Variants of the recipe `augmented`: accuracy on {NUM_VALIDATION:,} validation images",
        "Command: `python -m experiments.active_learning.choose_recipe`. Fitted to "
        f"{NUM_LABELLED} random MNIST training images; the validation images are training images "
        "too. No test image was used. The first is what the search began with; the others say what "
        "they change in it.",
        reporting.table(["variant", "mean", *seeds], rows),
        reporting.machine("jax", "flax", "optax"),
    )


if __name__ == "__main__":
    main()
