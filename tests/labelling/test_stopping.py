"""Agreement of successive models."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import bbald_jax as bb


def test_kappa_is_that_of_another_library():
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 4, (5, 200))
    predicted[1:, :120] = predicted[0, :120]
    found = bb.predictions_agreement(predicted)
    pairs = itertools.pairwise(predicted)
    np.testing.assert_allclose(found.kappas, [cohen_kappa_score(*pair) for pair in pairs])
    assert found.mean == pytest.approx(found.kappas[1:].mean())
    assert not found.is_stable


def test_three_agreements_make_it_stable():
    same = np.tile(np.arange(300) % 3, (5, 1))
    changed = same.copy()
    changed[0, :100] = 2
    assert bb.predictions_agreement(changed).is_stable
    assert not bb.predictions_agreement(changed[:4]).is_stable
    few = bb.predictions_agreement(same[:3])
    assert np.isnan(few.mean) and not few.is_stable
    assert bb.predictions_agreement(np.zeros((4, 9), int)).kappas.tolist() == [1, 1, 1]


@pytest.mark.parametrize("wrong", [np.zeros(3, int), np.zeros((2, 0), int), np.zeros((2, 3))])
def test_what_is_no_predictions(wrong: np.ndarray):
    with pytest.raises(ValueError, match="predicted: "):
        bb.predictions_agreement(wrong)
