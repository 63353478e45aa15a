"""Names in CSV files: a spreadsheet must take none for a formula, and we read the same name back.

A spreadsheet runs a cell that begins with one of `= + - @`, a tab or a line end; an apostrophe
before it makes it text. A name that has such an apostrophe of its own gets one more, so that no two
names become one.

Source: OWASP, "CSV Injection".
"""

import re


def to_cell(name: str) -> str:
    """A name as the text of a cell; a plain number, such as -5, is no formula."""
    bare = name.lstrip("'")
    is_formula = bare.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    is_number = re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", bare)
    return f"'{name}" if is_formula and not is_number else name


def from_cell(cell: str) -> str:
    """The name that `to_cell` made a cell of."""
    name = cell.removeprefix("'")
    return name if to_cell(name) == cell else cell
