"""Fitting a network to the labelled points by a recipe."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.learning.augmentation import augment
from bbald_jax.learning.chunks import map_chunks
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.mc_dropout import sample_mc_dropout
from bbald_jax.learning.model import Model, Params
from bbald_jax.learning.recipes import Recipe
from bbald_jax.pool import Labelled
from bbald_jax.typing import Key

# So many updates in a row are skipped when their gradient is not finite.
_MAX_SKIPPED = 10


def mc_dropout_learner(model: Model, recipe: Recipe) -> Learner:
    """A network trained from its initial parameters, and sampled by consistent MC dropout."""

    @partial(jax.jit, static_argnums=3)
    def sample(key: Key, params: Params, x: Array, num_samples: int) -> Array:
        return sample_mc_dropout(key, model, params, x, num_samples=num_samples)

    return Learner(
        init=jax.jit(lambda key, x: model.init(key, x[:1])),
        fit=jax.jit(partial(_fit, model, recipe)),
        sample=sample,
        warm_start=recipe.warm_start,
        needs_labels=True,
    )


class _Training(NamedTuple):
    """What one epoch hands to the next."""

    epoch: Int[Array, ""]
    params: Params
    average: Params
    optimiser: optax.OptState
    best: Params
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
    """Parameters fitted by `recipe`; where nothing is labelled, those to start from."""
    if recipe.warm_start:
        # Never from what a fit that diverged left behind.
        is_finite = jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), params)
        is_sound = jnp.all(jnp.array(jax.tree.leaves(is_finite)))
        fresh = model.init(jax.random.fold_in(key, recipe.max_epochs), labelled.x[:1])
        params = jax.tree.map(partial(jnp.where, is_sound), params, fresh)
    optimiser = optax.apply_if_finite(optax.adam(recipe.learning_rate), _MAX_SKIPPED)

    def loss(params: Params, key: Key, x: Array, y: Array) -> Float[Array, ""]:
        logits = _apply_each(model, params, x, key)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    def step(carry, key: Key):
        params, average, optimiser_state = carry
        draw_key, dropout_key, augmentation_key = jax.random.split(key, 3)
        rows = jax.random.randint(draw_key, (recipe.batch_size,), 0, labelled.num_examples)
        x, y = labelled.x[rows], labelled.y[rows]
        if recipe.augmentation is not None:
            x = augment(augmentation_key, x, recipe.augmentation)
        gradient = jax.grad(loss)(params, dropout_key, x, y)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - recipe.ema_decay)
        return (params, average, optimiser_state), None

    def epoch(state: _Training) -> _Training:
        keys = jax.random.split(jax.random.fold_in(key, state.epoch), recipe.steps_per_epoch)
        start = (state.params, state.average, state.optimiser)
        (params, average, optimiser_state), _ = lax.scan(step, start, keys)
        num_correct = _count_correct(model, average, validation)
        is_best = (num_correct > state.best_correct) | (validation.num_examples == 0)
        return _Training(
            epoch=state.epoch + 1,
            params=params,
            average=average,
            optimiser=optimiser_state,
            best=jax.tree.map(partial(jnp.where, is_best), average, state.best),
            best_correct=jnp.where(is_best, num_correct, state.best_correct),
            epochs_since_best=jnp.where(is_best, 0, state.epochs_since_best + 1),
        )

    def goes_on(state: _Training):
        is_patient = state.epochs_since_best < recipe.patience
        return (labelled.num_examples > 0) & (state.epoch < recipe.max_epochs) & is_patient

    start = _Training(
        epoch=jnp.int32(0),
        params=params,
        average=params,
        optimiser=optimiser.init(params),
        best=params,
        best_correct=jnp.int32(-1),
        epochs_since_best=jnp.int32(0),
    )
    return lax.while_loop(goes_on, epoch, start).best


def _apply_each(model: Model, params: Params, x: Array, key: Key) -> Float[Array, "n C"]:
    """Logits of every point by a function of its own."""
    if model.apply_each is not None:
        return model.apply_each(params, x, key)
    keys = jax.random.split(key, x.shape[0])
    return jax.vmap(model.apply, in_axes=(None, 0, 0))(params, x[:, None], keys)[:, 0]


def _count_correct(model: Model, params: Params, examples: Labelled) -> Int[Array, ""]:
    """How many examples the deterministic network gets right; what is no number is wrong."""
    if examples.x.shape[0] == 0:
        return jnp.int32(0)
    logits = map_chunks(lambda x: model.apply(params, x), examples.x, chunk_size=256)
    is_real = jnp.arange(examples.y.size) < examples.num_examples
    is_correct = (jnp.argmax(logits, axis=-1) == examples.y) & ~jnp.isnan(logits).any(axis=-1)
    return jnp.sum(is_correct & is_real, dtype=jnp.int32)
