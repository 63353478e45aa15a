"""Fitting: it learns, stops early with its best parameters, and never reads the padding."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from bbald_jax.acquisition.functions import Inputs, catalogue
from bbald_jax.learning.augmentation import Augmentation
from bbald_jax.learning.learner import Learner
from bbald_jax.learning.linen import flax_model
from bbald_jax.learning.model import Model
from bbald_jax.learning.networks import MLP
from bbald_jax.learning.recipes import PAPER, Recipe
from bbald_jax.learning.training import mc_dropout_learner
from bbald_jax.loop.rounds import _log_mean, _measure
from bbald_jax.pool import Labelled

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return mc_dropout_learner(toy.mlp(), toy.RECIPE)


@pytest.fixture(scope="module")
def initial(learner: Learner):
    return learner.init(KEY, jnp.zeros((1, 2)))


def assert_trees_equal(actual, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def largest_difference(one, other) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)))


def predictions(learner: Learner, params, x: jax.Array) -> np.ndarray:
    """The mean of 16 sampled predictions, as probabilities `[n, C]`."""
    log_probs = learner.sample(jax.random.key(7), params, x, 16)
    assert log_probs.shape == (len(x), 16, toy.NUM_CLASSES)
    return np.exp(log_probs).mean(axis=1)


def test_the_paper_recipe_is_the_paper_protocol():
    assert PAPER.batch_size * PAPER.steps_per_epoch == 5_056
    assert PAPER[1:] == (64, 1e-3, 79, 30, 3, 1024, None, 0, False)


def test_it_learns_the_labels_it_is_told(learner: Learner, initial):
    # Told the classes turned by one, it must predict them so: luck cannot.
    x, y = toy.blobs(1, 40)
    x_test, y_test = toy.blobs(2, 40)
    for shift in (0, 1):
        examples = toy.labelled(x, (y + shift) % toy.NUM_CLASSES)
        params = learner.fit(KEY, initial, examples, toy.nothing())
        predicted = predictions(learner, params, x_test).argmax(axis=1)
        assert np.mean(predicted == (y_test + shift) % toy.NUM_CLASSES) > 0.95


def test_fitting_lowers_the_loss_of_unseen_points(learner: Learner, initial):
    x_test, y_test = toy.blobs(2, 40)
    params = learner.fit(KEY, initial, toy.labelled(*toy.blobs(1, 40)), toy.nothing())
    before, after = (
        _measure(_log_mean(learner.sample(KEY, p, x_test, 16)), y_test).nll
        for p in (initial, params)
    )
    assert after < 0.3 * before


def test_the_fit_comes_from_the_key(learner: Learner, initial):
    examples = toy.labelled(*toy.blobs(1, 40))
    one, again, other = (
        learner.fit(jax.random.key(seed), initial, examples, toy.nothing()) for seed in (1, 1, 2)
    )
    assert_trees_equal(one, again)
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert all(np.any(a != b) for a, b in leaves)


def test_the_start_comes_from_the_key(learner: Learner, initial):
    assert_trees_equal(learner.init(KEY, jnp.ones((9, 2))), initial)
    kernels = [leaf for leaf in jax.tree.leaves(initial) if leaf.ndim == 2]
    others = jax.tree.leaves(learner.init(jax.random.key(1), jnp.zeros((1, 2))))
    assert all(
        np.any(a != b)
        for a, b in zip(kernels, (leaf for leaf in others if leaf.ndim == 2), strict=True)
    )


def test_no_labels_leave_the_parameters_alone(learner: Learner, initial):
    examples = toy.labelled(*toy.blobs(1, 40), num_examples=0)
    validation = toy.labelled(*toy.blobs(2, 20))
    assert_trees_equal(learner.fit(KEY, initial, examples, toy.nothing()), initial)
    assert_trees_equal(learner.fit(KEY, initial, examples, validation), initial)


@pytest.mark.parametrize("num_examples", [1, 5, 40])  # a minibatch is 16
def test_labels_of_one_class_are_predicted_everywhere(learner: Learner, initial, num_examples: int):
    x, _ = toy.blobs(1, 40)
    y = jnp.full(40, 2, jnp.int32)
    examples = toy.labelled(x, y, num_examples)
    params = learner.fit(KEY, initial, examples, toy.nothing())
    probs = predictions(learner, params, x[:1])
    assert np.isfinite(probs).all()
    assert probs.argmax(axis=1).tolist() == [2]


def with_garbage(examples: Labelled) -> Labelled:
    is_real = jnp.arange(examples.y.size) < examples.num_examples
    return Labelled(
        jnp.where(is_real[:, None], examples.x, jnp.nan),
        jnp.where(is_real, examples.y, -12345),
        examples.num_examples,
    )


def test_the_padding_is_not_read(learner: Learner, initial):
    examples = toy.labelled(*toy.blobs(1, 40), num_examples=7)
    validation = toy.labelled(*toy.blobs(2, 20), num_examples=9)
    expected = learner.fit(KEY, initial, examples, validation)
    actual = learner.fit(KEY, initial, with_garbage(examples), with_garbage(validation))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    assert_trees_equal(actual, expected)


def test_padding_of_the_validation_set_is_not_counted(initial):
    # The first nine can never be right, so the first epoch is the best; the others get better.
    recipe = toy.RECIPE._replace(steps_per_epoch=1, max_epochs=20, patience=20)
    learner = mc_dropout_learner(toy.mlp(), recipe)
    examples = toy.labelled(*toy.blobs(1, 40))
    x, y = toy.blobs(2, 30)
    y = jnp.where(jnp.arange(30) < 9, toy.NUM_CLASSES, y)
    alone, padded, whole = (
        learner.fit(KEY, initial, examples, validation)
        for validation in (toy.labelled(x[:9], y[:9]), toy.labelled(x, y, 9), toy.labelled(x, y))
    )
    assert_trees_equal(padded, alone)
    leaves = zip(jax.tree.leaves(padded), jax.tree.leaves(whole), strict=True)
    assert any(np.any(a != b) for a, b in leaves), "the test needs rows that would count"


def test_every_example_is_drawn(initial):
    # The last of more than a minibatch is of another class: it is learnt only if it is drawn.
    learner = mc_dropout_learner(toy.mlp(), toy.RECIPE._replace(max_epochs=12))
    others = toy.RECIPE.batch_size
    x = jnp.full((others + 1, 2), jnp.array([3.0, 0])).at[-1, 0].set(-3)
    for last in (1, 2):  # one of them at least is not what it would be anyway
        examples = toy.labelled(x, jnp.zeros(others + 1, jnp.int32).at[-1].set(last))
        params = learner.fit(KEY, initial, examples, toy.nothing())
        assert predictions(learner, params, x).argmax(axis=1).tolist() == [0] * others + [last]


def test_a_class_without_labels_is_improbable_and_the_others_are_learnt(learner: Learner, initial):
    x, y = toy.blobs(1, 40)
    rows = np.flatnonzero(y != 1)
    params = learner.fit(KEY, initial, toy.labelled(x[rows], y[rows]), toy.nothing())
    x_test, y_test = toy.blobs(2, 40)
    probs = predictions(learner, params, x_test)
    assert probs.shape == (40, toy.NUM_CLASSES)
    assert np.isfinite(probs).all()
    is_known = np.asarray(y_test != 1)
    # Where the others are; far from all labels anything may be predicted.
    assert probs[is_known, 1].max() < 0.05
    assert np.mean(probs.argmax(axis=1)[is_known] == y_test[is_known]) > 0.95


# --- gradients that are not finite


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_broken_point_is_skipped_and_the_rest_is_learnt(initial, batch_size: int):
    # Drawn in 300 or 600 draws for certain.
    recipe = toy.RECIPE._replace(batch_size=batch_size, steps_per_epoch=300, max_epochs=1)
    learner = mc_dropout_learner(toy.mlp(), recipe)
    x, y = toy.blobs(1, 40)
    examples = toy.labelled(x.at[3].set(jnp.nan), y)
    params = learner.fit(KEY, initial, examples, toy.nothing())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    x_test, y_test = toy.blobs(2, 40)
    assert np.mean(predictions(learner, params, x_test).argmax(axis=1) == y_test) > 0.95


def test_ten_steps_in_a_row_may_be_skipped_and_the_eleventh_ends_the_fit(initial):
    x, y = toy.blobs(1, 40)
    examples = toy.labelled(jnp.full_like(x, jnp.nan), y)
    for num_steps, is_over in ((10, False), (11, True)):
        recipe = toy.RECIPE._replace(steps_per_epoch=num_steps, max_epochs=1)
        learner = mc_dropout_learner(toy.mlp(), recipe)
        params = learner.fit(KEY, initial, examples, toy.nothing())
        if is_over:
            assert np.isnan(predictions(learner, params, x)).all()  # of sound points
        else:
            assert_trees_equal(params, initial)


def test_a_fit_of_broken_points_says_so_and_nothing_is_acquired(learner: Learner, initial):
    x, y = toy.blobs(1, 40)
    examples = toy.labelled(jnp.full_like(x, jnp.nan), y)
    params = learner.fit(KEY, initial, examples, toy.nothing())
    log_probs = learner.sample(KEY, params, x, 4)
    assert np.isnan(log_probs).all()
    for name in ("bald", "batchbald"):
        batch = catalogue(num_configurations=50)[name].select(
            KEY, Inputs(log_probs), batch_size=2, available=jnp.ones(40, bool), pending=None
        )
        assert batch.indices.tolist() == [-1, -1]
        assert batch.diagnostics.num_invalid == 40


def fragile(limit: float) -> Model:
    """A linear model whose logits are NaN once a weight exceeds the limit."""

    def init(key: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.zeros((2, toy.NUM_CLASSES))

    def apply(weights: jax.Array, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return x @ (weights * jnp.where(jnp.abs(weights).max() > limit, jnp.nan, 1))

    return Model(init, apply)


def test_a_fit_that_diverges_keeps_its_best_parameters():
    # Adam moves a weight by 0.01 a step: it breaks in the second epoch of ten steps, and the fit
    # ends in the third.
    recipe = toy.RECIPE._replace(steps_per_epoch=10, max_epochs=5, patience=5)
    learner = mc_dropout_learner(fragile(0.15), recipe)
    examples = toy.labelled(*toy.blobs(1, 40))
    initial = learner.init(KEY, examples.x)
    x, y = toy.blobs(2, 30)
    assert np.isnan(learner.fit(KEY, initial, examples, toy.labelled(x, y, 0))).all()

    first = mc_dropout_learner(fragile(0.15), recipe._replace(max_epochs=1))
    expected = first.fit(KEY, initial, examples, toy.nothing())
    assert np.mean(predictions(learner, expected, x).argmax(axis=1) == y) > 0.95
    # The argmax of NaN is class 0: if that were right, the last epoch would be the best for 0.
    for wanted in (y, jnp.zeros_like(y)):
        params = learner.fit(KEY, initial, examples, toy.labelled(x, wanted))
        assert_trees_equal(params, expected)


# --- what a fit does, step by step


class Spy(NamedTuple):
    """A model that remembers how it is used."""

    model: Model
    #: The points trained on and their logits: each point, or each minibatch, with a leading axis.
    minibatches: list[tuple[np.ndarray, np.ndarray]]
    #: The parameters that were tried on the validation points, once an epoch.
    validated: list


def spy_on(model: Model) -> Spy:
    minibatches, validated = [], []

    def note(x, logits):
        minibatches.append((np.asarray(x), np.asarray(logits)))

    def apply(params, x, key=None):
        logits = model.apply(params, x, key)
        if key is None:
            jax.debug.callback(validated.append, params, ordered=True)
        else:
            jax.debug.callback(note, x, logits)
        return logits

    def apply_each(params, x, key):
        assert model.apply_each is not None
        logits = model.apply_each(params, x, key)
        jax.debug.callback(note, x, logits)
        return logits

    has_each = model.apply_each is not None
    return Spy(Model(model.init, apply, apply_each if has_each else None), minibatches, validated)


def fit_spied(
    recipe: Recipe, initial, examples: Labelled, validation: Labelled, model: Model | None = None
):
    spy = spy_on(toy.mlp() if model is None else model)
    params = mc_dropout_learner(spy.model, recipe).fit(KEY, initial, examples, validation)
    jax.effects_barrier()
    return spy, params


@pytest.mark.parametrize("has_each", [True, False])
def test_every_example_of_every_step_has_its_own_mask(has_each: bool):
    # One example and parameters that stay: only the mask can change its logits.
    module = MLP(toy.NUM_CLASSES, hidden=(256,), dropout_rate=0.5)
    model = flax_model(module)
    if has_each:
        model = model._replace(
            apply_each=lambda params, x, key: module.apply(
                params, x, deterministic=False, rngs={"dropout": key}
            )
        )
    recipe = toy.RECIPE._replace(max_epochs=3, learning_rate=0.0)
    x, y = toy.blobs(1, 1)
    initial = model.init(KEY, x)
    spy, _ = fit_spied(recipe, initial, toy.labelled(x, y), toy.nothing(), model)
    logits = np.concatenate([logits.reshape(-1, toy.NUM_CLASSES) for _, logits in spy.minibatches])
    assert len(logits) == recipe.batch_size * recipe.steps_per_epoch * recipe.max_epochs
    assert len(np.unique(logits, axis=0)) == len(logits)


def test_without_validation_points_it_runs_to_the_last_epoch(initial):
    examples = toy.labelled(*toy.blobs(1, 40))
    recipe = toy.RECIPE._replace(max_epochs=7, patience=1)
    empty = toy.labelled(*toy.blobs(2, 20), num_examples=0)
    spy, params = fit_spied(recipe, initial, examples, empty)
    assert len(spy.validated) == 7
    last = spy.validated[-1]
    assert_trees_equal(params, last)
    spy, params = fit_spied(recipe, initial, examples, toy.nothing())
    num_trained_on = sum(len(x) for x, _ in spy.minibatches)
    assert num_trained_on == recipe.batch_size * recipe.steps_per_epoch * 7
    assert_trees_equal(params, last)


@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_when_nothing_improves(initial, patience: int):
    # Classes that do not exist are never right: the first epoch stays the best.
    x, y = toy.blobs(2, 20)
    validation = toy.labelled(x, y + toy.NUM_CLASSES)
    examples = toy.labelled(*toy.blobs(1, 40))
    recipe = toy.RECIPE._replace(max_epochs=30, patience=patience)
    spy, params = fit_spied(recipe, initial, examples, validation)
    assert len(spy.validated) == 1 + patience
    assert_trees_equal(params, spy.validated[0])


def test_the_best_parameters_are_restored(initial):
    # Steps so few and so large, on points so mixed, that accuracy goes up and down.
    recipe = Recipe(
        "nervous", batch_size=4, learning_rate=0.1, steps_per_epoch=1, max_epochs=40, patience=6
    )
    x, y = toy.blobs(2, 60)
    x = x + 3 * jax.random.normal(KEY, x.shape)
    validation = toy.labelled(x, y)
    spy, params = fit_spied(recipe, initial, toy.labelled(*toy.blobs(1, 40)), validation)

    apply = jax.jit(partial(toy.mlp().apply, x=x))
    counts = [int(np.sum(np.argmax(apply(tried), axis=-1) == y)) for tried in spy.validated]
    best = counts.index(max(counts))  # the first of equals
    assert best > 0, "the test needs an epoch that improves"
    assert len(counts) < 40, "the test needs an early stop"
    assert counts[best:].count(max(counts)) < len(counts[best:]), "and one that is worse"
    assert len(counts) == best + 1 + recipe.patience
    assert_trees_equal(params, spy.validated[best])


def test_the_average_is_that_of_the_parameters_after_every_step(initial):
    recipe = toy.RECIPE._replace(steps_per_epoch=1, max_epochs=5)
    examples = toy.labelled(*toy.blobs(1, 40))
    empty = toy.labelled(*toy.blobs(2, 20), num_examples=0)
    spy, last = fit_spied(recipe, initial, examples, empty)
    average = jax.tree.map(np.asarray, initial)
    for params in spy.validated:
        average = jax.tree.map(lambda mean, new: 0.7 * mean + 0.3 * new, average, params)
    learner = mc_dropout_learner(toy.mlp(), recipe._replace(ema_decay=0.7))
    params = learner.fit(KEY, initial, examples, toy.nothing())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, average)
    assert largest_difference(params, last) > 1e-3


# --- augmentation

AUGMENTATION = Augmentation(shift=0.2, rotation=0.3, scale=0.1, shear=0.1, elastic=0.05)


def images(num_images: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_images, 6, 5, 1))
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(3, size=num_images), jnp.int32)


def test_every_example_of_every_step_is_deformed_in_its_own_way():
    recipe = toy.RECIPE._replace(steps_per_epoch=4, max_epochs=2, augmentation=AUGMENTATION)
    x, y = images(1)
    none = Labelled(jnp.zeros((0, 6, 5, 1)), jnp.zeros(0, jnp.int32), jnp.int32(0))
    spy, _ = fit_spied(recipe, toy.mlp().init(KEY, x), toy.labelled(x, y), none)
    seen = np.concatenate([x.reshape(len(x), -1) for x, _ in spy.minibatches])
    assert len(seen) == recipe.batch_size * 4 * 2
    assert len(np.unique(seen, axis=0)) == len(seen)


def test_augmentation_changes_the_fit_and_that_of_zero_does_not():
    x, y = images(10)
    initial = toy.mlp().init(KEY, x)
    none = Labelled(jnp.zeros((0, 6, 5, 1)), jnp.zeros(0, jnp.int32), jnp.int32(0))
    plain, zero, augmented = (
        mc_dropout_learner(
            toy.mlp(),
            toy.RECIPE._replace(steps_per_epoch=5, max_epochs=1, augmentation=augmentation),
        ).fit(KEY, initial, toy.labelled(x, y), none)
        for augmentation in (None, Augmentation(0, 0, 0, 0, 0), AUGMENTATION)
    )
    assert largest_difference(zero, plain) < 1e-4
    assert largest_difference(augmented, plain) > 1e-2


def test_augmentation_of_points_that_are_no_images_is_refused(initial):
    learner = mc_dropout_learner(toy.mlp(), toy.RECIPE._replace(augmentation=AUGMENTATION))
    with pytest.raises(ValueError, match="take a recipe without augmentation"):
        learner.fit(KEY, initial, toy.labelled(*toy.blobs(1, 40)), toy.nothing())


# --- going on from the round before


@pytest.fixture(scope="module")
def warm() -> Learner:
    return mc_dropout_learner(toy.mlp(), toy.RECIPE._replace(warm_start=True))


@pytest.mark.parametrize("changes", [{"max_epochs": 0}, {"learning_rate": 0.0, "ema_decay": 0.5}])
def test_a_warm_start_is_from_the_parameters_it_is_given(initial, changes: dict[str, float]):
    # At rate 0 nothing moves; the average, too, starts there.
    recipe = toy.RECIPE._replace(warm_start=True, **changes)
    examples = toy.labelled(*toy.blobs(1, 40))
    params = mc_dropout_learner(toy.mlp(), recipe).fit(KEY, initial, examples, toy.nothing())
    assert largest_difference(params, initial) < 1e-6


def test_a_warm_start_is_the_same_fit(learner: Learner, warm: Learner, initial):
    examples = toy.labelled(*toy.blobs(1, 40))
    cold_fit, warm_fit = (a.fit(KEY, initial, examples, toy.nothing()) for a in (learner, warm))
    assert largest_difference(warm_fit, cold_fit) < 1e-4


@pytest.mark.parametrize(("position", "value"), [(0, np.nan), (-1, np.inf)])
def test_a_warm_start_never_goes_on_from_a_fit_that_diverged(
    warm: Learner, initial, position: int, value: float
):
    leaves, structure = jax.tree.flatten(initial)
    leaves[position] = leaves[position].at[(0,) * leaves[position].ndim].set(value)
    broken = jax.tree.unflatten(structure, leaves)
    examples = toy.labelled(*toy.blobs(1, 40))
    x_test, y_test = toy.blobs(2, 40)
    params = warm.fit(KEY, broken, examples, toy.nothing())
    assert np.mean(predictions(warm, params, x_test).argmax(axis=1) == y_test) > 0.95


def test_what_a_warm_start_starts_from_instead_is_drawn_from_the_key(initial):
    recipe = toy.RECIPE._replace(warm_start=True, max_epochs=0)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, initial)
    examples = toy.labelled(*toy.blobs(1, 40))
    learner = mc_dropout_learner(toy.mlp(), recipe)
    one, again, other = (
        learner.fit(jax.random.key(seed), broken, examples, toy.nothing()) for seed in (0, 0, 1)
    )
    assert_trees_equal(one, again)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))
    assert largest_difference(one, other) > 0.1
