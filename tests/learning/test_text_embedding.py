"""Text features beside the formula in float64, and the edges."""

import math
import re
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

TEXTS = [
    "The cat sat on the mat, the cat!",
    "A dog ran far away from the cat.",
    "the dog and the dog and the mat",
    "Far away the sea ran high",
    "",
]
D = 3


def reference(texts: list[str], outside: list[str]) -> np.ndarray:
    words = [re.findall(r"\w\w+", text.lower()) for text in texts + outside]
    known = sorted({word for text in words[: len(texts)] for word in text})
    rows = np.zeros((len(words), len(known)))
    for n, text in enumerate(words):
        for w, word in enumerate(known):
            if count := text.count(word):
                num_texts = sum(word in other for other in words[: len(texts)])
                rarity = 1 + math.log((1 + len(texts)) / (1 + num_texts))
                rows[n, w] = (1 + math.log(count)) * rarity
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    axes = np.linalg.svd(rows[: len(texts)], full_matrices=False)[2][:D]
    return rows @ axes.T


def test_the_formula():
    outside = ["the sea and a cat and a cat", "unheard of"]
    pool, others = bb.text_features(TEXTS, outside, num_features=D)
    assert pool.dtype == others.dtype == np.float32
    actual, expected = np.concatenate([pool, others]), reference(TEXTS, outside)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-5)


def test_texts_without_a_known_word_are_zero():
    pool, outside = bb.text_features(TEXTS, ["zebra", "", "! 7"], num_features=D)
    assert not pool[4].any()
    assert not outside.any()
    assert np.linalg.norm(pool[:4], axis=1).min() > 0.5


def test_what_is_outside_does_not_change_the_pool():
    pool = bb.text_features(TEXTS, num_features=D)
    # Any iterable will do.
    both = bb.text_features(iter(TEXTS), (text for text in ["zebra", *TEXTS]), num_features=D)
    np.testing.assert_array_equal(both[0], pool)
    np.testing.assert_allclose(both[1][1:], pool, atol=1e-6)


def test_fewer_words_or_texts_than_features():
    assert bb.text_features(TEXTS).shape == (5, 5)
    assert bb.text_features(["yes", "no", "yes", "no"]).shape == (4, 2)
    np.testing.assert_array_equal(bb.text_features(["yes", "yes yes", ""]), [[1], [1], [0]])


@pytest.mark.parametrize(
    ("texts", "outside", "message"),
    [
        ([], None, "texts: no texts"),
        (["yes", None], None, r"texts\[1\]: NoneType is no string"),
        (["yes"], [b"yes"], r"outside\[0\]: bytes is no string; decode it"),
        ("yes", None, "texts: one str, expected a list of strings"),
        (["", "a !"], None, "texts: no word of two letters or more"),
    ],
)
def test_errors_name_the_text_or_the_fix(texts: Any, outside: Any, message: str):
    function: Any = getattr(bb.text_features, "__wrapped__", bb.text_features)
    with pytest.raises(ValueError, match=message):
        function(texts, outside)
