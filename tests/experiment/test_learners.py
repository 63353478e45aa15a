"""What an experiment learns with, and from what: features in the place of points."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbald_jax.experiment import learners
from bbald_jax.experiment.config import Config, ConfigError
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.feature_files import make_features
from bbald_jax.experiment.learners import FEATURES_FILE, make_learner, with_features
from bbald_jax.experiment.splits import split

RNG = np.random.default_rng(0)
HEAD: dict[str, Any] = {"learner": "logistic-head"}


def make_dataset(*shape: int) -> Dataset:
    x = RNG.random((40, *shape), np.float32)
    y = np.arange(40, dtype=np.int32) % 2
    return Dataset("mine", x[:30], y[:30], x[30:], y[30:], 2)


def make_texts() -> Dataset:
    words = np.array(["ant bee cow", "cow dog elk", "ant elk fox", "bee dog fox", "gnu"])
    dataset = make_dataset(1)
    return dataset._replace(x_train=words[np.arange(30) % 5], x_test=words[np.arange(10) % 5])


def test_a_network_takes_the_points_as_they_are(tmp_path: Path):
    dataset = make_dataset(8, 8, 1)
    taken = with_features(Config(), dataset, tmp_path)
    assert taken.x_train is dataset.x_train
    assert taken.x_test is dataset.x_test


def test_the_head_takes_images_as_rows(tmp_path: Path):
    dataset = make_dataset(8, 8, 1)
    flat = with_features(Config(**HEAD), dataset, tmp_path)
    np.testing.assert_array_equal(flat.x_train, dataset.x_train.reshape(30, 64))
    np.testing.assert_array_equal(flat.x_test, dataset.x_test.reshape(10, 64))


def test_features_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, config = make_dataset(8, 8, 1), Config(**HEAD, features="image")
    first = with_features(config, dataset, tmp_path)
    train, test = make_features("image", dataset.x_train, dataset.x_test)
    np.testing.assert_array_equal(first.x_train, train)
    np.testing.assert_array_equal(first.x_test, test)
    assert (tmp_path / FEATURES_FILE).exists()
    monkeypatch.setattr("bbald_jax.experiment.feature_files.make_features", None)
    again = with_features(config, dataset, tmp_path)
    np.testing.assert_array_equal(again.x_train, train)


def test_texts_become_features(tmp_path: Path):
    made = with_features(Config(**HEAD, features="text"), make_texts(), tmp_path)
    assert made.x_train.shape[0] == 30
    assert made.x_train.ndim == 2
    assert np.isfinite(made.x_test).all()


@pytest.mark.parametrize(
    ("options", "dataset", "words"),
    [
        ({}, make_texts(), "its points are texts, .* take --features text, or give embeddings"),
        ({"features": "graph"}, make_texts(), "take --features text"),
        ({"features": "text"}, make_dataset(5), "its points are no texts; take --features none"),
        ({"features": "image"}, make_dataset(5), "vectors of 5 numbers; take --features none"),
        ({"features": "image+graph"}, make_dataset(5), "--features image.graph: .* vectors of 5"),
        ({"recipe": "augmented"}, make_dataset(5), "vectors of 5 numbers; take --recipe paper"),
        (
            {"recipe": "augmented", "features": "image"},
            make_dataset(8, 8, 1),
            "--features image leaves none; take --recipe paper",
        ),
    ],
)
def test_what_points_cannot_serve_is_refused(tmp_path: Path, options: Any, dataset, words: str):
    with pytest.raises(ConfigError, match=words):
        with_features(Config(**options), dataset, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_recipe_of_the_network_is_nothing_to_the_head(tmp_path: Path):
    with_features(Config(**HEAD, recipe="augmented"), make_dataset(5), tmp_path)
    with_features(Config(recipe="augmented"), make_dataset(8, 8, 1), tmp_path)


def test_what_features_refuse_names_the_option(tmp_path: Path):
    dataset = make_dataset(5)
    dataset.x_train[3, 2] = np.nan
    with pytest.raises(ConfigError, match="--features graph: "):
        with_features(Config(**HEAD, features="graph"), dataset, tmp_path)


def test_points_that_are_all_alike_to_the_head_are_refused(tmp_path: Path):
    dataset = make_dataset(1)  # one column, whose size the head does not see
    with pytest.raises(ConfigError, match="--features none: x: all points have the same features"):
        with_features(Config(**HEAD), dataset, tmp_path)
    with_features(Config(), dataset, tmp_path)


def test_the_head_needs_no_validation_labels():
    dataset = make_dataset(5)
    assert len(split(Config(), dataset, 0).validation) == 5
    assert len(split(Config(**HEAD), dataset, 0).validation) == 0
    assert len(split(Config(**HEAD), dataset, 0).pool) == 30


def test_learners_are_what_they_are_called():
    dataset = make_dataset(5)
    assert make_learner(Config(**HEAD), dataset).gaussian is not None
    assert make_learner(Config(), dataset).needs_labels
    assert learners.LEARNERS == ("dropout-network", "logistic-head")
