"""The two pools on which the scoring engine is measured.

    python -m experiments.benchmarks.scoring_pools FOLDER

writes `FOLDER/synthetic.npy` and `FOLDER/mnist.npy`, each `[10000, 100, 10]` float32
log-probabilities:

- *synthetic*, saturated: 100 random linear-softmax models over 8 standard normal features. Ten
  points are enough to tell the models apart.
- *mnist*, real: the predictions of the paper's CNN for 10,000 training images, by 100 consistent
  MC-dropout samples, after fitting it to 100 labelled ones (10 of each class).
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbald_jax as bb

NUM_POINTS, NUM_SAMPLES, NUM_CLASSES, NUM_FEATURES = 10_000, 100, 10, 8


def synthetic() -> np.ndarray:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((NUM_SAMPLES, NUM_FEATURES, NUM_CLASSES))
    x = rng.standard_normal((NUM_POINTS, NUM_FEATURES))
    logits = np.einsum("nd,kdc->nkc", x, weights)
    return np.asarray(bb.from_logits(logits))


def mnist() -> np.ndarray:
    dataset = bb.datasets.load_mnist()
    classes = jnp.asarray(dataset.y_train)
    init_key, fit_key, sample_key, pool_key = jax.random.split(jax.random.key(0), 4)
    state = bb.loop.init(pool_key, classes, num_classes=NUM_CLASSES, initial_per_class=10)
    labelled = bb.pool.gather_labelled(state.pool, jnp.asarray(dataset.x_train), capacity=100)
    unlabelled = np.flatnonzero(np.asarray(bb.pool.available(state.pool)))
    validation, pool = np.split(unlabelled[: 1024 + NUM_POINTS], [1024])
    learner = bb.mc_dropout_learner(bb.flax_model(bb.PaperCNN(NUM_CLASSES)), bb.PAPER)
    learned = learner.fit(
        fit_key,
        learner.init(init_key, labelled.x),
        labelled,
        bb.pool.Labelled(
            jnp.asarray(dataset.x_train[validation]), classes[validation], jnp.int32(1024)
        ),
    )
    x = jnp.asarray(dataset.x_train[pool])
    return np.asarray(learner.sample(sample_key, learned, x, NUM_SAMPLES))


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in (synthetic, mnist):
        path = folder / f"{make.__name__}.npy"
        if not path.exists():
            np.save(path, make())
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
