"""Small problems and short recipes for the tests of the learning half."""

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.model import Model
from bbald_jax.learning.networks import MLP
from bbald_jax.learning.recipes import Recipe
from bbald_jax.pool import Labelled

NUM_CLASSES = 3

#: The functions compiled since the tests began.
COMPILED: list[str] = []


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(str(kwargs.get("fun_name", "?")))


jax.monitoring.register_event_duration_secs_listener(_on_event)

RECIPE = Recipe(
    "toy", batch_size=16, learning_rate=0.01, steps_per_epoch=15, max_epochs=4, patience=2
)


def blobs(seed: int, num_points: int, spread: float = 0.4) -> tuple[jax.Array, jax.Array]:
    """Points around three centres in the plane, and which centre it is; 0.4 separates them well."""
    rng = np.random.default_rng(seed)
    y = rng.integers(NUM_CLASSES, size=num_points)
    centres = 3 * np.array([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])
    x = centres[y] + spread * rng.normal(size=(num_points, 2))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def mlp() -> Model:
    return flax_model(MLP(NUM_CLASSES, hidden=(16,), dropout_rate=0.2))


def labelled(x: jax.Array, y: jax.Array, num_examples: int | None = None) -> Labelled:
    """All rows as examples, or the first `num_examples` of them."""
    return Labelled(x, y, jnp.int32(y.size if num_examples is None else num_examples))


def nothing(num_features: int = 2) -> Labelled:
    """A buffer without rows: no validation points."""
    return Labelled(jnp.zeros((0, num_features)), jnp.zeros(0, jnp.int32), jnp.int32(0))
