"""Packages that are missing: who needs them, and what installs them."""

import pytest

from bbald_jax.extras import import_extra


def test_a_missing_package_is_named_with_what_installs_it():
    message = (
        r"^bb\.graph_features needs no_such_package; install it with: "
        r"pip install 'bbald_jax\[features\]'$"
    )
    with pytest.raises(ModuleNotFoundError, match=message) as error:
        import_extra("no_such_package.part", extra="features", user="bb.graph_features")
    assert error.value.name == "no_such_package.part"


def test_a_part_of_a_package_is_loaded():
    assert import_extra("xml.dom", extra="features", user="a test").__name__ == "xml.dom"
