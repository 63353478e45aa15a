"""Features by name, and whether a file of them is believed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bbald_jax as bb
from bbald_jax.experiment import feature_files
from bbald_jax.experiment.feature_files import KINDS, load_or_make, make_features

IMAGES = np.random.default_rng(0).random((30, 8, 8, 1), np.float32)
TRAIN, TEST = IMAGES[:20], IMAGES[20:]
TEXTS = ["a red car", "the blue car", "red and blue"]


def assert_equal(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)


def test_each_kind_is_what_its_function_says():
    assert KINDS == ("none", "graph", "image", "text", "image+graph")
    assert_equal(make_features("none", TRAIN, TEST), (TRAIN.reshape(20, 64), TEST.reshape(10, 64)))
    assert_equal(make_features("graph", TRAIN, TEST), bb.graph_features(TRAIN, TEST))
    images = bb.image_features(TRAIN, TEST)
    assert_equal(make_features("image", TRAIN, TEST), images)
    assert_equal(make_features("image+graph", TRAIN, TEST), bb.graph_features(*images))
    assert_equal(make_features("text", TEXTS, TEXTS[:1]), bb.text_features(TEXTS, TEXTS[:1]))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that were made, and not read from a file."""
    kinds, make = [], make_features

    def count(kind: str, *args: Any, **options: Any) -> Any:
        kinds.append(kind)
        return make(kind, *args, **options)

    monkeypatch.setattr(feature_files, "make_features", count)
    return kinds


@pytest.mark.parametrize(
    ("kind", "train", "test"), [("image", TRAIN, TEST), ("text", TEXTS, TEXTS[:2])]
)
def test_a_file_is_read_where_it_was_made_of_the_same(
    kind: str, train: Any, test: Any, tmp_path: Path, made: list[str]
):
    path = tmp_path / "features.safetensors"
    first = load_or_make(path, kind, train, test)
    assert_equal(load_or_make(path, kind, train, test), first)
    assert made == [kind]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_was_made_of_something_else_is_made_anew(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "features.safetensors"
    brighter = TRAIN.copy()
    brighter[3, 2, 1] += 1e-3
    cases = [
        ("none", TRAIN, TEST, 0),
        ("none", brighter, TEST, 0),
        ("none", TRAIN, brighter[:10], 0),
        ("none", TRAIN.reshape(20, 64), TEST, 0),
        ("none", TRAIN, TEST, 1),
        ("graph", TRAIN, TEST, 1),
    ]
    for number, (kind, train, test, seed) in enumerate(cases, start=1):
        for _ in range(2):
            features = load_or_make(path, kind, train, test, seed=seed)
            assert_equal(features, make_features(kind, train, test, seed=seed))
        assert len(made) == number
    monkeypatch.setattr(feature_files.metadata, "version", lambda _: "0")
    load_or_make(path, "graph", TRAIN, TEST, seed=1)
    monkeypatch.setattr(feature_files, "_VERSION", 0)
    load_or_make(path, "graph", TRAIN, TEST, seed=1)
    assert len(made) == len(cases) + 2


def test_texts_that_are_parted_elsewhere_are_others(tmp_path: Path, made: list[str]):
    path = tmp_path / "features.safetensors"
    for texts in (["red car", "blue"], ["red", "car blue"], ["red", "car", "blue"]):
        load_or_make(path, "text", texts, ["red"])
    assert made == ["text"] * 3


def test_a_damaged_file_is_made_anew(tmp_path: Path, made: list[str]):
    path = tmp_path / "features.safetensors"
    expected = load_or_make(path, "none", TRAIN, TEST)
    whole = path.read_bytes()
    for content in (b"", b"no safetensors", whole[:-9], whole[:40]):
        path.write_bytes(content)
        assert_equal(load_or_make(path, "none", TRAIN, TEST), expected)
        assert path.read_bytes() == whole
    save_file({"train": TRAIN}, path)
    load_or_make(path, "none", TRAIN, TEST)
    assert set(load_file(path)) == {"train", "test"}
    assert len(made) == 6


def test_an_unknown_kind_is_named(tmp_path: Path):
    for function in (make_features, lambda *args: load_or_make(tmp_path / "f", *args)):
        with pytest.raises(ValueError, match="'pixels' is none of none, graph, image, text, image"):
            function("pixels", TRAIN, TEST)
    assert not [*tmp_path.iterdir()]
