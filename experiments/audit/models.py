"""Successive heads on pools of 10,000 points: what is audited, fitted once for all simulations.

Each pool is a random part of the training points; the head's labels are chosen by batch EPIG in
closed form, 10 at a time, from none. Kept in `results/`: after each batch the predicted classes,
and the surrogate's probability that they are wrong, 1 - max_c q_c, with q the head's predictions
moderated by its Gaussian posterior (MacKay 1992). All from the pool's number, fixed beforehand.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from bbald_jax.experiment.datasets import load_dataset
from experiments.common import reporting
from experiments.head.features_table import features

POOL_SIZE = 10_000
BATCH_SIZE = 10
NUM_TARGETS = 1_000
#: The features of each data set.
KINDS = {"mnist": "encoder+graph", "fashion-mnist": "image+graph"}
#: Labels of the last model.
MOST_LABELS = {"mnist": 500, "fashion-mnist": 400}


class Curve(NamedTuple):
    """Successive models on one pool.

    Attributes:
      y: `[N]`, the true classes.
      chosen: `[L]`, the points trained on, in order; model j is fitted to the first 10 j.
      predicted: `[J + 1, N]`, the classes that each model predicts; model 0 has no label.
      error_probs: `[J + 1, N]`, the surrogate.
    """

    y: np.ndarray
    chosen: np.ndarray
    predicted: np.ndarray
    error_probs: np.ndarray

    def errors(self, model: int) -> np.ndarray:
        """`[N]`, True where it is wrong."""
        return self.predicted[model] != self.y


def _moderated_error(log_probs: jax.Array, factors: jax.Array) -> jax.Array:
    variance = jnp.sum(factors**2, axis=1, keepdims=True)
    return 1 - jax.nn.softmax(log_probs / jnp.sqrt(1 + jnp.pi / 8 * variance), axis=1).max(axis=1)


def fit_curve(x_all: np.ndarray, y_all: np.ndarray, seed: int, most_labels: int) -> Curve:
    """The models on pool number `seed`."""
    order = np.random.default_rng(seed).permutation(len(x_all))[:POOL_SIZE]
    x, y = jnp.asarray(x_all[order]), np.asarray(y_all[order], np.int32)
    learner: Any = bb.logistic_head(10)
    keys = iter(jax.random.split(jax.random.key(seed), 2 + 2 * most_labels // BATCH_SIZE))
    state = learner.init(next(keys), x)
    rows, chosen = np.zeros(most_labels, int), []
    predicted, error_probs = [], []
    while True:
        targets = x[jax.random.permutation(next(keys), POOL_SIZE)[:NUM_TARGETS]]
        posterior = learner.gaussian(state, x, targets)
        log_probs = learner.predict(state, x)
        predicted.append(np.asarray(log_probs.argmax(axis=1), np.uint8))
        error_probs.append(np.asarray(_moderated_error(log_probs, posterior.factors)))
        if len(chosen) == most_labels:
            break
        available = np.ones(POOL_SIZE, bool)
        available[chosen] = False
        batch = bb.select_batch_epig_closed(
            posterior, batch_size=BATCH_SIZE, available=jnp.asarray(available), key=next(keys)
        )
        chosen += np.asarray(batch.indices).tolist()
        rows[: len(chosen)] = chosen
        labelled = bb.pool.Labelled(x[rows], jnp.asarray(y[rows]), jnp.int32(len(chosen)))
        state = learner.fit(jax.random.key(0), state, labelled, labelled)
    return Curve(y, np.asarray(chosen), np.stack(predicted), np.stack(error_probs))


def load_curves(dataset: str, num_pools: int) -> list[Curve]:
    """The models on pools 0, 1, ...; those that are not in `results/` are fitted."""
    curves, points = [], None
    for seed in range(num_pools):
        path = Path(reporting.ROOT, "results", "audit", f"{dataset}-{seed}.npz")
        if not path.exists():
            if points is None:
                data = load_dataset(dataset)
                points = (features(data, KINDS[dataset])[0], data.y_train)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, **fit_curve(*points, seed, MOST_LABELS[dataset])._asdict())
            reporting.progress(f"{dataset}, pool {seed}: fitted")
        with np.load(path) as file:
            curves.append(Curve(**file))
    return curves
