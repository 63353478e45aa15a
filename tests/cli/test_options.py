"""The names that options accept are those of the modules that define them."""

from typing import get_args

import bbald_jax as bb
from bbald_jax.cli import options, prediction_files
from bbald_jax.experiment import datasets, feature_files, learners
from bbald_jax.learning import recipes
from bbald_jax.validation import Kind


def test_every_acquisition_function_can_be_chosen():
    assert list(options.ACQUISITIONS) == list(bb.catalogue())


def test_every_data_set_can_be_chosen():
    assert options.DATASETS == datasets.DATASETS


def test_every_kind_can_be_chosen():
    assert get_args(Kind) == options.KINDS


def test_the_suffixes_of_lists_are_those_that_are_read():
    assert options.LISTS == prediction_files.LISTS


def test_every_recipe_can_be_chosen():
    assert list(options.RECIPES) == list(recipes.RECIPES)


def test_learners():
    assert options.LEARNERS == learners.LEARNERS


def test_features():
    assert options.FEATURES == feature_files.KINDS
