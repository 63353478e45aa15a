"""Forests of scikit-learn: what a leaf says, in the order of the forest's classes."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from bbald_jax.acquisition.selection import select
from bbald_jax.learning.forest import sample_forest

X = np.array([[0.0, 0], [1, 0], [2, 0], [3, 5], [4, 5], [5, 5]])
Y = np.array(["c", "c", "a", "a", "b", "b"])


def test_a_leaf_says_its_smoothed_frequencies():
    forest = RandomForestClassifier(4, max_depth=1, bootstrap=False, random_state=0).fit(X, Y)
    probs = sample_forest(forest, X)
    assert probs.shape == (6, 4, 3)
    for k, tree in enumerate(forest.estimators_):
        leaves = tree.apply(X)
        for n in range(6):
            mates = Y[leaves == leaves[n]]
            counts = np.array([(mates == name).sum() for name in "abc"])
            expected = (counts + 1 / 3) / (len(mates) + 1)
            np.testing.assert_allclose(probs[n, k], expected, rtol=1e-12)
    assert set(np.ptp(probs, axis=0).max(axis=0)) != {0}


def test_points_count_as_often_as_the_bootstrap_drew_them():
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    largest = sample_forest(forest, X).max(axis=-1)
    # A pure leaf of n points: (n + 1/3) / (n + 1), for n of more than one at times.
    sizes = (largest - 1 / 3) / (1 - largest)
    assert sizes.max() > 1.5
    np.testing.assert_allclose(sizes, np.round(sizes), atol=1e-9)


@pytest.mark.parametrize("load", [load_wine, load_iris, load_breast_cancer])
def test_from_ten_labels_on(load: Any):
    x, y = load(return_X_y=True)
    labelled = np.random.default_rng(0).permutation(len(x))[:10]
    forest = RandomForestClassifier(50, random_state=0).fit(x[labelled], y[labelled])
    probs = sample_forest(forest, x)
    assert probs.shape == (len(x), 50, y.max() + 1)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-12)
    # Trees tell points apart (not those whose bootstrap sample was of one class), and differ about
    # most of them.
    assert np.median(np.ptp(probs, axis=0).max(axis=-1)) > 0.3
    assert np.median(np.ptp(probs, axis=1).max(axis=-1)) > 0.3
    # The recipe that does not get off the ground.
    stumps = RandomForestClassifier(50, min_samples_leaf=5, random_state=0)
    with pytest.raises(
        ValueError, match=r"each of the 50 members says the same.*min_samples_leaf=1"
    ):
        sample_forest(stumps.fit(x[labelled], y[labelled]), x)


def test_a_batch_from_ten_labels_leaves_something_to_learn():
    x, y = load_wine(return_X_y=True)
    labelled = np.random.default_rng(0).permutation(len(x))[:10]
    forest = RandomForestClassifier(50, random_state=0).fit(x[labelled], y[labelled])
    probs = sample_forest(forest, x)
    batch = select(probs, kind="probs", exclude=labelled, batch_size=5, num_configurations=500)
    assert batch.warnings == ()
    assert batch.gains.min() > 0.1
    assert batch.diagnostics.remaining_entropy[-1] > 1


def test_members_that_lack_classes_and_features():
    x = np.column_stack([X, X[:, 0] % 2])
    member = KNeighborsClassifier(1)  # it knows no weights, so that it is fitted to fewer points
    bag = BaggingClassifier(member, 12, max_samples=3, max_features=2, random_state=2).fit(x, Y)
    assert min(len(one.classes_) for one in bag.estimators_) < 3
    probs = sample_forest(bag, x)
    for k, (one, columns) in enumerate(zip(bag.estimators_, bag.estimators_features_, strict=True)):
        expected = np.zeros((6, 3))
        expected[:, one.classes_] = one.predict_proba(x[:, columns])
        np.testing.assert_array_equal(probs[:, k], expected)


def test_a_tree_that_lacks_a_class():
    bag = BaggingClassifier(n_estimators=1, random_state=0).fit(X, Y)
    bag.estimators_ = [DecisionTreeClassifier().fit(X[2:], [0, 0, 1, 1])]  # no "c"
    expected = np.array([[7, 1, 1]] * 4 + [[1, 7, 1]] * 2) / 9  # leaves of two points
    np.testing.assert_allclose(sample_forest(bag, X)[:, 0], expected)


@pytest.mark.parametrize(
    ("forest", "words"),
    [
        (RandomForestClassifier(), "after its fit"),
        (AdaBoostClassifier().fit(X, Y), "correct one another.*BaggingClassifier"),
        (GradientBoostingClassifier(n_estimators=2).fit(X, Y), "are no classifiers"),
        (DecisionTreeClassifier().fit(X, Y), "no estimators_"),
        (RandomForestClassifier(2).fit(X, np.stack([Y, Y], axis=1)), "2 outputs; fit one for each"),
        (RandomForestClassifier(2).fit(X, Y == "d"), "only; label a point of another class"),
    ],
)
def test_what_is_no_forest_is_refused(forest: Any, words: str):
    with pytest.raises(ValueError, match=rf"^forest: .*{words}"):
        sample_forest(forest, X)


def test_members_fitted_elsewhere_are_refused():
    forest = RandomForestClassifier(2, random_state=0).fit(X, Y)
    forest.estimators_ = [DecisionTreeClassifier().fit(X, Y)] * 2
    with pytest.raises(ValueError, match=r"^forest: a DecisionTreeClassifier has.*0 to 2; put"):
        sample_forest(forest, X)
