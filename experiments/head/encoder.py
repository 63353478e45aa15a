"""A small encoder of images, trained without labels: SimCLR, in minutes on two cores.

    python -m experiments.head.encoder --dataset mnist [--num-steps 20]

Two random deformations of each image of a batch are brought together, and apart from those of the
other images. What the network says of the training and the test images, before the layers of the
loss and on 64 principal axes, goes to `results/DATASET_encoder.safetensors`. The same seed gives
the same file on one machine, with the same number of threads (`NPROC`).

Settings were compared on MNIST, on training labels outside of the pools of `features_table`: with
group normalisation and a step size of 3e-3, 300 steps gave 88.0 % at 50 labels, without and with
1e-3 82.5 %. Deformations, temperature and sizes were fixed beforehand; nothing was compared on
Fashion-MNIST, whose step size and normalisation are MNIST's.

Source: Chen, Kornblith, Norouzi, Hinton, A Simple Framework for Contrastive Learning of Visual
Representations (2020).
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import save

from bbald_jax.experiment.datasets import load_dataset
from bbald_jax.files import write_atomically
from bbald_jax.learning.augmentation import Augmentation, augment
from bbald_jax.learning.chunks import map_chunks
from bbald_jax.learning.convolution import Conv, max_pool
from experiments.common import reporting

FOLDER = reporting.ROOT / "results"
NUM_STEPS = 700
BATCH_SIZE = 256
LEARNING_RATE = 3e-3
TEMPERATURE = 0.2
NUM_FEATURES = 64
_STEPS_A_CALL = 20


class Views(NamedTuple):
    """What may happen to an image without its being another: `flips` left and right, too."""

    deformations: Augmentation
    flips: bool


VIEWS = {
    "mnist": Views(Augmentation(4 / 28, 0.4, 0.3, 0.3, 1.5 / 28), flips=False),
    "fashion-mnist": Views(Augmentation(4 / 28, 0.1, 0.3, 0.1, 0.5 / 28), flips=True),
}


class Encoder(nn.Module):
    """Three convolutions and a dense layer; and two more, through which the loss sees it."""

    def setup(self) -> None:
        """The layers."""
        self.convolutions = Conv(16, 5), Conv(32, 3), Conv(64, 3)
        self.norms = tuple(nn.GroupNorm(4) for _ in self.convolutions)
        self.dense = nn.Dense(128)
        self.projection = nn.Dense(128), nn.Dense(64)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[n, 28, 28, c]` to `[n, 128]`."""
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(x)
            x = nn.relu(norm(max_pool(x) if i < 2 else x))  # 24 to 12, 10 to 5, and 3 pixels
        return nn.relu(self.dense(x.reshape(len(x), -1)))

    def project(self, x: jax.Array) -> jax.Array:
        """`[n, 64]`, rows of length 1."""
        hidden, last = self.projection
        z = last(nn.relu(hidden(self(x))))
        return z * jax.lax.rsqrt(jnp.sum(z**2, axis=1, keepdims=True) + 1e-6)


def nt_xent(z: jax.Array) -> jax.Array:
    """Cross-entropy, in nats, of finding each row's other view among all others.

    -mean_i log( exp(z_i'z_j(i) / t) / sum_{k != i} exp(z_i'z_k / t) ),  j(i) = i + n mod 2 n

    Args:
      z: `[2 n, d]`, rows of length 1; i and i + n are views of the same image.
    """
    logits = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, z @ z.T / TEMPERATURE)
    other = jnp.roll(jnp.arange(len(z)), len(z) // 2)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, other))


def view(key: jax.Array, x: jax.Array, views: Views) -> jax.Array:
    """Each image at random as it might have been as well."""
    deform_key, flip_key = jax.random.split(key)
    x = augment(deform_key, x, views.deformations)
    if views.flips:
        is_flipped = jax.random.bernoulli(flip_key, shape=(len(x), 1, 1, 1))
        x = jnp.where(is_flipped, x[:, :, ::-1], x)
    return x


def train(key: jax.Array, x: np.ndarray, views: Views, num_steps: int) -> Any:
    """Parameters after `num_steps` batches, drawn with replacement from all images."""
    encoder = Encoder()
    init_key, run_key = jax.random.split(key)
    params = encoder.init(init_key, jnp.asarray(x[:1]), method="project")
    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))

    def loss(params, key: jax.Array, batch: jax.Array) -> jax.Array:
        both = view(key, jnp.concatenate([batch, batch]), views)
        z: Any = encoder.apply(params, both, method="project")
        return nt_xent(z)

    def step(carry, key: jax.Array):
        params, state = carry
        rows_key, view_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (BATCH_SIZE,), 0, len(pool))
        value, gradient = jax.value_and_grad(loss)(params, view_key, pool[rows])
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    pool = jnp.asarray(x)
    several = jax.jit(partial(jax.lax.scan, step), donate_argnums=0)
    carry = (params, optimiser.init(params))
    keys = jax.random.split(run_key, num_steps)
    for first in range(0, num_steps, _STEPS_A_CALL):
        carry, values = several(carry, keys[first : first + _STEPS_A_CALL])
        reporting.progress(f"{first + len(values)} steps, loss {float(values.mean()):.3f} nats")
    return carry[0]


def embed(params: Any, *groups: np.ndarray) -> list[np.ndarray]:
    """`[n, 64]` of each group of images: what the encoder says, on the first group's axes."""
    encode = jax.jit(partial(map_chunks, partial(Encoder().apply, params), chunk_size=256))
    rows = [np.asarray(encode(jnp.asarray(x)), np.float64) for x in groups]
    mean = rows[0].mean(axis=0)
    axes = np.linalg.eigh(np.cov(rows[0].T))[1][:, ::-1][:, :NUM_FEATURES]
    return [np.ascontiguousarray((each - mean) @ axes, np.float32) for each in rows]


def file_of(name: str) -> Path:
    return FOLDER / f"{name}_encoder.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=VIEWS, default="mnist")
    parser.add_argument("--num-steps", type=int, default=NUM_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="by default in results/")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset)
    params = train(
        jax.random.key(arguments.seed),
        dataset.x_train,
        VIEWS[arguments.dataset],
        arguments.num_steps,
    )
    train_rows, test_rows = embed(params, dataset.x_train, dataset.x_test)
    path = arguments.output or file_of(arguments.dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"seed": str(arguments.seed), "num_steps": str(arguments.num_steps)}
    write_atomically(path, save({"train": train_rows, "test": test_rows}, about))
    reporting.progress(f"wrote {path}, {time.process_time():.0f} s of one core in all")


if __name__ == "__main__":
    main()
