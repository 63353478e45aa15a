"""How far the samples of the logistic head are from its posterior: likelihood and calibration.

    python -m experiments.head.calibration [--num-seeds 1 --num-steps 2000]

MNIST, HOG features (`bb.image_features`), random labels. The mean prediction of 100 samples of
each posterior is compared on the test images: anchored MAP solutions, Laplace's approximation, the
MAP alone, and, as the truth, a long run of elliptical slice sampling, which is exact but for its
autocorrelation (Murray, Adams, MacKay 2010): four chains from anchored samples, the first quarter
dropped. Seeds 0 to 9, fixed beforehand; nothing is tuned here.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.experiment.feature_files import load_or_make
from bbald_jax.learning.head import HeadState, sample_weights
from bbald_jax.learning.logistic_regression import Span, span
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "head"
NUM_LABELS = (20, 50, 200)
PRIOR_VARIANCE = 16.0
NUM_SAMPLES = 100
NUM_CHAINS = 4
NUM_BINS = 15


class Quality(NamedTuple):
    """Of predictions, on test points."""

    accuracy: float
    nll: float
    calibration_error: float


def quality(log_mean_probs: np.ndarray, classes: np.ndarray) -> Quality:
    """Accuracy, mean negative log-likelihood (nats), and the expected calibration error.

    The last is the mean over test points of |accuracy - confidence| of its bin of confidence, 15
    bins of equal width (Guo et al. 2017).
    """
    confidence = np.exp(log_mean_probs.max(axis=1))
    is_correct = log_mean_probs.argmax(axis=1) == classes
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    difference = np.bincount(bins, is_correct - confidence, minlength=NUM_BINS)
    return Quality(
        is_correct.mean(),
        -log_mean_probs[np.arange(len(classes)), classes].mean(),
        np.abs(difference).sum() / len(classes),
    )


@partial(jax.jit, static_argnums=(4, 5))
def elliptical_slices(
    key: jax.Array,
    starts: jax.Array,
    space: Span,
    observed: jax.Array,
    num_steps: int,
    every: int,
) -> tuple[jax.Array, jax.Array]:
    """Chains `[S, chains, R, C]` over the weights in the span, and their log-likelihoods."""

    def log_likelihood(u):
        log_probs = jax.nn.log_softmax(space.rows @ u, axis=-1)
        return jnp.sum(jnp.where(observed > 0, log_probs, 0), axis=(-2, -1))

    def step(carry, key):
        u, likelihood = carry
        normal_key, slice_key, angle_key, loop_key = jax.random.split(key, 4)
        ellipse = jnp.sqrt(PRIOR_VARIANCE) * jax.random.normal(normal_key, u.shape)
        height = likelihood + jnp.log(jax.random.uniform(slice_key))
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)

        def point(angle):
            return u * jnp.cos(angle) + ellipse * jnp.sin(angle)

        def shrink(carry):
            angle, low, high, key, _ = carry
            key, now = jax.random.split(key)
            low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
            angle = jax.random.uniform(now, minval=low, maxval=high)
            return angle, low, high, key, log_likelihood(point(angle))

        start = (angle, angle - 2 * jnp.pi, angle, loop_key, log_likelihood(point(angle)))
        angle, *_, likelihood = jax.lax.while_loop(lambda c: c[4] <= height, shrink, start)
        return (point(angle), likelihood), None

    def stretch(carry, key):
        carry, _ = jax.lax.scan(step, carry, jax.random.split(key, every))
        return carry, carry

    def chain(key, start):
        keys = jax.random.split(key, num_steps // every)
        return jax.lax.scan(stretch, (start, log_likelihood(start)), keys)[1]

    chains, likelihoods = jax.vmap(chain, out_axes=1)(jax.random.split(key, NUM_CHAINS), starts)
    kept = num_steps // every // 4
    return chains[kept:], likelihoods[kept:]


def split_r_hat(values: np.ndarray) -> float:
    """Gelman et al. (2013), of `[S, chains]`: near 1 where chains and their halves agree."""
    half = len(values) // 2
    parts = np.concatenate([values[:half], values[half : 2 * half]], axis=1)
    within = parts.var(axis=0, ddof=1).mean()
    between = half * parts.mean(axis=0).var(ddof=1)
    return float(np.sqrt((half - 1) / half + between / within / half))


def slice_samples(key: jax.Array, state: HeadState, num_steps: int) -> tuple[jax.Array, float]:
    """Weights `[D, S, C]` of all kept steps, and R-hat of their log-likelihood."""
    keys = jax.random.split(key, 3)
    space = span(state.rows, PRIOR_VARIANCE)
    starts = space.enter(sample_weights(keys[0], state, NUM_CHAINS))
    observed = jax.nn.one_hot(state.labels, state.weights.shape[1])
    every = max(1, num_steps // 200)
    chains, likelihoods = elliptical_slices(
        keys[1], jnp.moveaxis(starts, 1, 0), space, observed, num_steps, every
    )
    inside = jnp.moveaxis(chains.reshape(-1, *chains.shape[2:]), 0, 1)
    shape = (state.weights.shape[0], *inside.shape[1:])
    draws = jnp.sqrt(PRIOR_VARIANCE) * jax.random.normal(keys[2], shape)
    # What lies outside of the span is the prior's.
    return draws + space.leave(inside - space.enter(draws)), split_r_hat(np.asarray(likelihoods))


@jax.jit
def mean_prediction(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """`[n, C]`, the logarithm of the mean over samples `[D, S, C]`."""

    def chunk(rows):
        log_probs = jax.nn.log_softmax(jnp.einsum("nd,dsc->nsc", rows, weights), axis=-1)
        return jax.nn.logsumexp(log_probs, axis=1) - jnp.log(weights.shape[1])

    return jax.lax.map(chunk, rows.reshape(20, -1, rows.shape[1])).reshape(len(rows), -1)


def evaluate(
    seed: int, num_labels: int, num_steps: int, data: tuple[np.ndarray, ...]
) -> tuple[dict[str, Quality], float]:
    """Each posterior's quality with random labels, and R-hat of the slice sampling."""
    x, y, x_test, y_test = data
    learner: Any = bb.logistic_head(10, prior_variance=PRIOR_VARIANCE)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), num_labels), 4)
    chosen = np.asarray(jax.random.permutation(keys[0], len(x))[:num_labels])
    labelled = bb.pool.Labelled(
        jnp.asarray(x[chosen]), jnp.asarray(y[chosen]), jnp.int32(num_labels)
    )
    state = learner.fit(keys[0], learner.init(keys[0], x), labelled, labelled)
    rows = learner.features(state, x_test)
    exact, r_hat = slice_samples(keys[1], state, num_steps)
    means = {
        "elliptical slice sampling": mean_prediction(rows, exact),
        "anchored": mean_prediction(rows, sample_weights(keys[2], state, NUM_SAMPLES)),
        "Laplace": mean_prediction(
            rows, sample_weights(keys[3], state, NUM_SAMPLES, posterior="laplace")
        ),
        "MAP": learner.predict(state, x_test),
    }
    return {name: quality(np.asarray(mean), y_test) for name, mean in means.items()}, r_hat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-seeds", type=int, default=10)
    parser.add_argument("--num-steps", type=int, default=40_000)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    dataset = load_mnist()
    arguments.output.mkdir(parents=True, exist_ok=True)
    reporting.ROOT.joinpath("results").mkdir(exist_ok=True)
    file = reporting.ROOT / "results" / "mnist_image.safetensors"
    x, x_test = load_or_make(file, "image", dataset.x_train, dataset.x_test)
    data = (x, dataset.y_train, x_test, dataset.y_test)
    sections, every_run = [], []
    for num_labels in NUM_LABELS:
        runs = []
        for seed in range(arguments.num_seeds):
            found, r_hat = evaluate(seed, num_labels, arguments.num_steps, data)
            runs.append((found, r_hat))
            every_run += [
                (num_labels, seed, name, *map(float, each)) for name, each in found.items()
            ]
            reporting.progress(f"{num_labels} labels, seed {seed}, R-hat {r_hat:.3f}")
        rows = []
        for name in runs[0][0]:
            values = np.array([found[name] for found, _ in runs])
            means = values.mean(axis=0)
            errors = values.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else means * 0
            cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(means, errors, strict=True)]
            rows.append([name, *cells])
        largest = max(r_hat for _, r_hat in runs)
        sections += [
            f"## {num_labels} labels",
            reporting.table(["posterior", "accuracy", "NLL, nats", "calibration error"], rows),
            f"R-hat of the log-likelihood at most {largest:.3f}.",
        ]
    csv = arguments.output / "calibration.csv"
    lines = ["labels,seed,posterior,accuracy,nll,calibration_error"]
    lines += [",".join(map(str, run)) for run in every_run]
    csv.write_text("\n".join(lines) + "\n")
    reporting.write(
        arguments.output / "calibration.md",
        "# How far the head's samples are from its posterior",
        f"Made by `python -m experiments.head.calibration`: MNIST, HOG features, random labels, "
        f"prior variance {PRIOR_VARIANCE:g}, {arguments.num_seeds} seeds (each another pool of "
        f"labels), means ± standard errors on 10,000 test images. {NUM_SAMPLES} samples of each "
        f"approximation; {NUM_CHAINS} chains of {arguments.num_steps:,} steps of elliptical slice "
        "sampling. Every run is in [calibration.csv](calibration.csv).",
        *sections,
        reporting.machine("jax", "jaxlib", "bbald_jax"),
    )


if __name__ == "__main__":
    main()
