"""What the logistic head refuses, and the line that says so."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy import sparse

from bbald_jax.learning.head import logistic_head
from bbald_jax.pool import Labelled

KEY = jax.random.key(0)
C, CAPACITY, K, WIDE = 4, 12, 6, 17
LEARNER: Any = logistic_head(C)
ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(30, WIDE)) + 0.5, jnp.float32)
CLASSES = jnp.arange(30, dtype=jnp.int32) % C
BEGUN = LEARNER.init(KEY, ROWS)
GOOD = Labelled(ROWS[:CAPACITY], CLASSES[:CAPACITY], jnp.int32(7))


@pytest.mark.parametrize(
    ("labelled", "words"),
    [
        (GOOD._replace(y=GOOD.y.at[3].set(C)), r"labelled\.y\[3\]: class 4, .* 0 to 3; .*num_cl"),
        (GOOD._replace(y=GOOD.y.at[6].set(-1)), r"labelled\.y\[6\]: class -1"),
        (GOOD._replace(y=GOOD.y + 0.5), r"labelled\.y: float32 .* give integers"),
        (GOOD._replace(y=GOOD.y[1:]), "12 rows of x and 11 labels"),
        (GOOD._replace(num_examples=CAPACITY + 1), "num_examples: 13, and its buffer holds 12"),
        (GOOD._replace(x=GOOD.x.at[2, 1].set(jnp.nan)), r"labelled\.x\[2\]: NaN or infinite"),
        (GOOD._replace(x=GOOD.x[:, :1]), r"labelled\.x: 1 features a point, .* begun with 17"),
    ],
)
def test_examples_that_would_be_learnt_as_something_else_are_refused(labelled, words: str):
    with pytest.raises(ValueError, match=words):
        LEARNER.fit(KEY, BEGUN, labelled, toy.nothing(WIDE))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (ROWS.at[29, 3].set(jnp.nan), r"x\[29\]: NaN or infinite"),
        (ROWS.at[0, 3].set(-jnp.inf), r"x\[0\]: NaN or infinite"),
        (jnp.arange(1.0, 31.0)[:, None] * ROWS[:1], "all points have the same features"),
        (jnp.arange(1.0, 31.0)[:, None], "all points have the same features"),
        (jnp.zeros((30, WIDE)), "all points have the same features"),
        (ROWS[:0], r"\(0, 17\) is not \[N, D\]"),
    ],
)
def test_a_pool_whose_points_the_head_cannot_tell_apart_is_refused(x, words: str):
    with pytest.raises(ValueError, match=words):
        LEARNER.init(KEY, x)


def test_points_that_are_nearly_the_same_are_taken():
    """A mean of rows that is as long as they are says only that a look is needed."""
    x = 1e3 + ROWS.at[:, 1:].set(0)
    assert np.linalg.norm(LEARNER.init(KEY, x).mean) > 1 - 1e-6
    LEARNER.init(KEY, ROWS[:1])


def test_one_column_is_no_other_pool():
    for call in (
        lambda: LEARNER.predict(BEGUN, ROWS[:, :1]),
        lambda: LEARNER.sample(KEY, BEGUN, ROWS[:, :1], K),
        lambda: LEARNER.gaussian(BEGUN, ROWS, ROWS[:, :1]),
    ):
        with pytest.raises(ValueError, match=r"x: 1 features a point, .* begun with 17"):
            call()
    with pytest.raises(ValueError, match="num_samples: 0"):
        LEARNER.sample(KEY, BEGUN, ROWS, 0)


def test_sparse_features_are_refused():
    matrix: Any = sparse.csr_matrix(np.asarray(ROWS))
    for call in (
        lambda: LEARNER.init(KEY, matrix),
        lambda: LEARNER.sample(KEY, BEGUN, matrix, K),
        lambda: LEARNER.predict(BEGUN, matrix),
        lambda: LEARNER.fit(KEY, BEGUN, GOOD._replace(x=matrix), toy.nothing(WIDE)),
    ):
        with pytest.raises(TypeError, match=r"is sparse.*bb\.text_features.*TruncatedSVD"):
            call()


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 8, 8, 1\) is not \[N, D\].*image_features"):
        LEARNER.init(KEY, jnp.zeros((5, 8, 8, 1)))
