"""Fitting a model to the labelled points; `Learner` is the seam where other learners plug in."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from bbald_jax.learning.augmentation import Augmentation, augment
from bbald_jax.learning.mc_dropout import map_chunks, map_each, sample_mc_dropout
from bbald_jax.learning.models import Model, Params
from bbald_jax.pool import Labelled
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
      warm_start: whether the loop hands `fit` the state after the last round, instead of a new
        one from `init`.
    """

    init: Callable[[Key, Array], Any]
    fit: Callable[[Key, Any, Labelled, Labelled], Any]
    sample: Callable[[Key, Any, Array, int], Array]
    warm_start: bool = False


class Recipe(NamedTuple):
    """How a network is fitted: Adam, on minibatches drawn with replacement.

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
      augmentation: random deformations of the images of every minibatch; None for none.
      ema_decay: the result is the exponential moving average of the parameters over the steps,
        with this decay; 0 is the last step's.
      warm_start: go on from the parameters of the round before, instead of new ones; Adam and the
        average start anew.
    """

    name: str
    batch_size: int = 64
    learning_rate: float = 1e-3
    steps_per_epoch: int = 79
    max_epochs: int = 30
    patience: int = 3
    num_validation: int = 1024
    augmentation: Augmentation | None = None
    ema_decay: float = 0.0
    warm_start: bool = False


#: The BatchBALD paper's protocol for MNIST: an epoch is 5,056 draws (79 minibatches of 64).
#: Source: Kirsch, van Amersfoort, Gal (2019), section 4.2 and their published code.
PAPER = Recipe("paper")

#: Fewer labels: small deformations, a fixed number of steps, and no labels for validation. What
#: decided each is in `experiments/README.md`.
AUGMENTED = Recipe(
    "augmented",
    batch_size=32,
    steps_per_epoch=2212,
    max_epochs=1,
    num_validation=0,
    augmentation=Augmentation(shift=2 / 28, rotation=0.2, scale=0.1, shear=0.15, elastic=1 / 28),
    ema_decay=0.995,
)

#: The same, from the parameters of the round before, with two sevenths of the steps.
AUGMENTED_WARM = AUGMENTED._replace(name="augmented-warm", steps_per_epoch=632, warm_start=True)

RECIPES = {recipe.name: recipe for recipe in (PAPER, AUGMENTED, AUGMENTED_WARM)}

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
    )


def ensemble_learner(learner: Learner, num_networks: int) -> Learner:
    """A deep ensemble: E networks from starts of their own, each sampled K / E times.

    Posterior sample e * K / E + j is sample j of network e. With MC-dropout networks it is an
    ensemble of their approximate posteriors; each has masks of its own.

    Args:
      learner: of one network, in JAX.
      num_networks: E; it must divide K, or `sample` raises ValueError.

    Source: Lakshminarayanan, Pritzel, Blundell, Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles (2017).
    """

    @jax.jit
    def init(key: Key, x: Array) -> Any:
        return map_each(lambda key: learner.init(key, x), jax.random.split(key, num_networks))

    @jax.jit
    def fit(key: Key, states: Any, labelled: Labelled, validation: Labelled) -> Any:
        return map_each(
            lambda start: learner.fit(start[0], start[1], labelled, validation),
            (jax.random.split(key, num_networks), states),
        )

    @partial(jax.jit, static_argnums=3)
    def sample(key: Key, states: Any, x: Array, num_samples: int) -> Array:
        num_masks, rest = divmod(num_samples, num_networks)
        if rest:
            raise ValueError(
                f"num_samples: {num_samples} posterior samples are not a multiple of the "
                f"{num_networks} networks of the ensemble; take "
                f"{num_samples - rest or num_networks}"
            )
        log_probs = map_each(
            lambda network: learner.sample(network[0], network[1], x, num_masks),
            (jax.random.split(key, num_networks), states),
        )  # [E, N, K / E, C]
        return jnp.moveaxis(log_probs, 0, 1).reshape(len(x), num_samples, -1)

    return Learner(init, fit, sample, learner.warm_start)


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
