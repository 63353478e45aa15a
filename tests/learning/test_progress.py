"""The bar: there on a terminal, nothing elsewhere."""

import sys

import pytest

from bbald_jax.learning.progress import progress


@pytest.mark.parametrize("is_terminal", [False, True])
def test_only_a_terminal_shows_a_bar(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("images", 2) as advance:
        advance()
        advance()
    output = capsys.readouterr()
    assert output.out == ""
    assert ("images" in output.err) == is_terminal
