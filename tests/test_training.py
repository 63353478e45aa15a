"""Fitting: it learns, stops early with its best parameters, and never reads the padding."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from bbald_jax.acquisition import Inputs, catalogue
from bbald_jax.loop import _measure
from bbald_jax.models import Model
from bbald_jax.pool import Labelled
from bbald_jax.training import PAPER, Learner, Recipe, mc_dropout_learner

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return mc_dropout_learner(toy.mlp(), toy.RECIPE)


@pytest.fixture(scope="module")
def initial(learner: Learner):
    return learner.init(KEY, jnp.zeros((1, 2)))


def assert_trees_equal(actual, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


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
        _measure(learner.sample(KEY, p, x_test, 16), y_test).nll for p in (initial, params)
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
    # One example of class 2, the last of the buffer: it is learnt only if it is drawn.
    learner = mc_dropout_learner(toy.mlp(), toy.RECIPE._replace(max_epochs=12))
    x = jnp.array([[3.0, 0], [2.9, 0], [2.8, 0], [-3.0, 0]])
    examples = toy.labelled(x, jnp.array([0, 0, 0, 2], jnp.int32))
    params = learner.fit(KEY, initial, examples, toy.nothing())
    assert predictions(learner, params, x).argmax(axis=1).tolist() == [0, 0, 0, 2]


def test_not_a_number_ends_the_fit_and_is_never_acquired(learner: Learner, initial):
    x, y = toy.blobs(1, 40)
    params = learner.fit(KEY, initial, toy.labelled(x.at[3].set(jnp.nan), y), toy.nothing())
    log_probs = learner.sample(KEY, params, x, 4)
    assert np.isnan(log_probs).all()
    for name in ("bald", "batchbald"):
        batch = catalogue(num_configurations=50)[name].select(
            KEY, Inputs(log_probs), batch_size=2, available=jnp.ones(40, bool), pending=None
        )
        assert batch.indices.tolist() == [-1, -1]
        assert batch.diagnostics.num_invalid == 40


class Spy(NamedTuple):
    """A model that remembers how it is used."""

    model: Model
    #: The dropout key of every example that was trained on.
    training_keys: list[tuple[int, ...]]
    #: The parameters that were tried on the validation points, once an epoch.
    validated: list


def spy_on(model: Model) -> Spy:
    training_keys, validated = [], []

    def apply(params, x, key=None):
        if key is None:
            jax.debug.callback(validated.append, params, ordered=True)
        else:
            note = lambda data: training_keys.append(tuple(data.tolist()))  # noqa: E731
            jax.debug.callback(note, jax.random.key_data(key))
        return model.apply(params, x, key)

    return Spy(Model(model.init, apply), training_keys, validated)


def fit_spied(recipe: Recipe, initial, examples: Labelled, validation: Labelled):
    spy = spy_on(toy.mlp())
    params = mc_dropout_learner(spy.model, recipe).fit(KEY, initial, examples, validation)
    jax.effects_barrier()
    return spy, params


def test_every_example_of_every_step_has_its_own_mask(initial):
    recipe = toy.RECIPE._replace(max_epochs=3)
    examples = toy.labelled(*toy.blobs(1, 40))
    keys = fit_spied(recipe, initial, examples, toy.nothing())[0].training_keys
    assert len(keys) == recipe.batch_size * recipe.steps_per_epoch * recipe.max_epochs
    assert len(set(keys)) == len(keys)


def test_without_validation_points_it_runs_to_the_last_epoch(initial):
    examples = toy.labelled(*toy.blobs(1, 40))
    recipe = toy.RECIPE._replace(max_epochs=7, patience=1)
    empty = toy.labelled(*toy.blobs(2, 20), num_examples=0)
    spy, params = fit_spied(recipe, initial, examples, empty)
    assert len(spy.validated) == 7
    last = spy.validated[-1]
    assert_trees_equal(params, last)
    spy, params = fit_spied(recipe, initial, examples, toy.nothing())
    assert len(spy.training_keys) == recipe.batch_size * recipe.steps_per_epoch * 7
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
