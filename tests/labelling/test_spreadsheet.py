"""Names that a spreadsheet would run, and back."""

import hypothesis
import pytest
from hypothesis import strategies as st

from bbald_jax.labelling.spreadsheet import from_cell, to_cell


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "'=", "''@"])
def test_no_cell_is_a_formula(start: str):
    assert to_cell(f"{start}SUM(A1)") == f"'{start}SUM(A1)"


@pytest.mark.parametrize("name", ["-5", "+5", "-0.25", "", "'", "a=b", "émile", "'quoted'"])
def test_what_is_no_formula_stays_as_it_is(name: str):
    assert to_cell(name) == name


@hypothesis.given(name=st.text("'=+-@\t\r\n.5a ", max_size=6))
def test_every_name_comes_back(name: str):
    assert from_cell(to_cell(name)) == name
