"""What BALD and BatchBALD choose from a pool with near-replicas: the picture in the README.

    python -m experiments.active_learning.idealised_acquisition

A two-dimensional problem with three classes and nine labels. An MC-dropout network is fitted to
them, and 10 of 300 points are chosen from its predictions, once by BALD and once by BatchBALD. The
pool has six tight groups of near-copies: each member of a group is informative, but one label
tells almost all that the group's others would. Both batches are then judged on posterior samples
that did not choose them.

After figure 1 of Kirsch, van Amersfoort, Gal (2019), which draws the idea; this computes it.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import bbald_jax as bb

BATCH_SIZE = 10
NUM_SAMPLES = 200
CENTRES = np.array([[-1.6, -1.0], [1.6, -1.0], [0.0, 1.7]])
OUTPUT = Path(__file__).parents[1] / "results" / "idealised_acquisition.png"


def make_pool(rng: np.random.Generator) -> np.ndarray:
    """`[300, 2]`: six groups of 40 near-copies, and 60 points spread over the plane."""
    groups = np.array([[0.0, -1.0], [-0.8, 0.4], [0.8, 0.4], [0.0, -2.4], [-2.4, 1.6], [2.4, 1.6]])
    copies = groups[:, None] + 0.06 * rng.standard_normal((6, 40, 2))
    return np.concatenate([copies.reshape(-1, 2), rng.uniform(-3.2, 3.2, (60, 2))])


def main() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 3)
    labelled_x = CENTRES[classes] + 0.25 * rng.standard_normal((9, 2))
    pool = make_pool(rng)
    side = np.linspace(-3.4, 3.4, 80)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)

    learner = bb.mc_dropout_learner(bb.flax_model(bb.MLP(3)), bb.PAPER)
    keys = jax.random.split(jax.random.key(0), 5)
    x = jnp.asarray(labelled_x, jnp.float32)
    labelled = bb.pool.Labelled(x, jnp.asarray(classes), jnp.int32(9))
    nothing = bb.pool.Labelled(x[:0], jnp.asarray(classes[:0]), jnp.int32(0))
    learned = learner.fit(keys[0], learner.init(keys[1], x), labelled, nothing)

    def predict(key, points):
        return learner.sample(key, learned, jnp.asarray(points, jnp.float32), NUM_SAMPLES)

    log_probs = predict(keys[2], pool)
    batches = {
        "BALD": bb.select_bald(log_probs, batch_size=BATCH_SIZE),
        "BatchBALD": bb.select_batchbald(keys[3], log_probs, batch_size=BATCH_SIZE),
    }
    fresh = predict(keys[4], pool)
    scores = bb.mutual_information(predict(keys[2], grid)).reshape(80, 80)

    figure = Figure(figsize=(10, 4.9), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    shades = []
    for axes, (name, batch) in zip(panels, batches.items(), strict=True):
        indices = np.asarray(batch.indices)
        worth = bb.estimate_joint_mutual_information(
            keys[3], fresh[indices], num_configurations=10_000
        )
        print(f"{name:>9}: {worth:.3f} nats on fresh samples; points {indices.tolist()}")
        shades.append(axes.pcolormesh(side, side, scores, cmap="Blues", shading="gouraud", vmin=0))
        axes.scatter(*pool.T, s=6, color="0.35", label="pool")
        for label, marker in enumerate("os^"):
            axes.scatter(
                *labelled_x[classes == label].T, marker=marker, s=45, color="white", ec="black"
            )
        axes.scatter(*pool[indices].T, s=110, facecolor="none", edgecolor="crimson", lw=1.8)
        axes.set_title(f"{name}: {worth:.2f} nats about the parameters")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(
        shades[0], ax=panels, label="mutual information of one label (BALD score), nats"
    )
    figure.savefig(OUTPUT, dpi=110)


if __name__ == "__main__":
    main()
