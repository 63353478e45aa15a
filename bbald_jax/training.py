"""Fitting a model to the labelled points; `Learner` is the seam where other learners plug in."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.models import Model, Params
from bbald_jax.pool import Labelled
from bbald_jax.posterior import map_chunks, sample_mc_dropout
from bbald_jax.typing import Key


class Learner(NamedTuple):
    """Anything that learns from labelled points and can be sampled: three pure functions.

    The loop calls them as they are, with concrete arrays: a learner in JAX jits its own functions
    (then a whole step of the loop can be jitted too); one that wraps another framework converts.

    Attributes:
      init: `init(key, x) -> state`, for inputs like `x [n, ...]`.
      fit: `fit(key, state, labelled, validation) -> state`, both `Labelled` buffers; a
        `validation.num_examples` of 0 means that there is none.
      sample: `sample(key, state, x, num_samples) -> log_probs [N, K, C]`. Sample k is the same
        function for every point, and depends on the key only: not on how x was cut into calls.
    """

    init: Callable[[Key, Array], Any]
    fit: Callable[[Key, Any, Labelled, Labelled], Any]
    sample: Callable[[Key, Any, Array, int], Array]


class Recipe(NamedTuple):
    """How a network is fitted: Adam, minibatches drawn with replacement, early stopping.

    After every epoch the accuracy on the validation points is measured; training stops when it
    has not risen for `patience` epochs, and the best parameters are restored. Without validation
    points it runs for `max_epochs`.

    Attributes:
      name: as on the command line.
      batch_size: examples in a minibatch.
      learning_rate: of Adam.
      steps_per_epoch: minibatches between two looks at the validation points.
      max_epochs: at most so many.
      patience: epochs without improvement until it stops.
      num_validation: labelled points set apart for early stopping, where the data set can spare
        them.
    """

    name: str
    batch_size: int = 64
    learning_rate: float = 1e-3
    steps_per_epoch: int = 79
    max_epochs: int = 30
    patience: int = 3
    num_validation: int = 1024


#: The BatchBALD paper's protocol for MNIST: an epoch is 5,056 draws (79 minibatches of 64).
#: Source: Kirsch, van Amersfoort, Gal (2019), section 4.2 and their published code.
PAPER = Recipe("paper")

RECIPES = {recipe.name: recipe for recipe in (PAPER,)}


def mc_dropout_learner(model: Model, recipe: Recipe) -> Learner:
    """A network trained from its initial parameters, and sampled by consistent MC dropout."""

    @partial(jax.jit, static_argnums=3)
    def sample(key: Key, params: Params, x: Array, num_samples: int) -> Array:
        return sample_mc_dropout(key, model, params, x, num_samples=num_samples)

    return Learner(
        init=jax.jit(lambda key, x: model.init(key, x[:1])),
        fit=jax.jit(partial(_fit, model, recipe)),
        sample=sample,
    )


class _Training(NamedTuple):
    """What one epoch hands to the next."""

    epoch: Int[Array, ""]
    params: Params
    optimiser: optax.OptState
    best_params: Params
    best_correct: Int[Array, ""]
    epochs_since_best: Int[Array, ""]


def _fit(
    model: Model,
    recipe: Recipe,
    key: Key,
    params: Params,
    labelled: Labelled,
    validation: Labelled,
) -> Params:
    """Parameters fitted by `recipe`; untouched where nothing is labelled."""
    optimiser = optax.adam(recipe.learning_rate)

    def loss(params: Params, key: Key, x: Array, y: Array) -> Float[Array, ""]:
        # A key an example: in training every example has a mask of its own.
        keys = jax.random.split(key, recipe.batch_size)
        logits = jax.vmap(model.apply, in_axes=(None, 0, 0))(params, x[:, None], keys)[:, 0]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    def step(carry, key: Key):
        params, optimiser_state = carry
        draw_key, dropout_key = jax.random.split(key)
        rows = jax.random.randint(draw_key, (recipe.batch_size,), 0, labelled.num_examples)
        gradient = jax.grad(loss)(params, dropout_key, labelled.x[rows], labelled.y[rows])
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        return (optax.apply_updates(params, updates), optimiser_state), None

    def epoch(state: _Training) -> _Training:
        keys = jax.random.split(jax.random.fold_in(key, state.epoch), recipe.steps_per_epoch)
        (params, optimiser_state), _ = lax.scan(step, (state.params, state.optimiser), keys)
        num_correct = _count_correct(model, params, validation)
        is_best = (num_correct > state.best_correct) | (validation.num_examples == 0)
        return _Training(
            epoch=state.epoch + 1,
            params=params,
            optimiser=optimiser_state,
            best_params=jax.tree.map(partial(jnp.where, is_best), params, state.best_params),
            best_correct=jnp.where(is_best, num_correct, state.best_correct),
            epochs_since_best=jnp.where(is_best, 0, state.epochs_since_best + 1),
        )

    def goes_on(state: _Training):
        is_patient = state.epochs_since_best < recipe.patience
        return (labelled.num_examples > 0) & (state.epoch < recipe.max_epochs) & is_patient

    none = jnp.int32(-1)
    start = _Training(jnp.int32(0), params, optimiser.init(params), params, none, jnp.int32(0))
    return lax.while_loop(goes_on, epoch, start).best_params


def _count_correct(model: Model, params: Params, examples: Labelled) -> Int[Array, ""]:
    """How many examples the deterministic network gets right."""
    if examples.x.shape[0] == 0:
        return jnp.int32(0)
    logits = map_chunks(lambda x: model.apply(params, x), examples.x, chunk_size=256)
    is_real = jnp.arange(examples.y.size) < examples.num_examples
    is_correct = jnp.argmax(logits, axis=-1) == examples.y
    return jnp.sum(is_correct & is_real, dtype=jnp.int32)
