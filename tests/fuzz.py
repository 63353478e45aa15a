"""How many cases the fuzz tests tried, and how they ended: printed at the end of a test run."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

CASES: dict[str, Counter] = defaultdict(Counter)


def result_or_refusal(edge: str, function: Callable[[], Any]) -> Any:
    """What the function returns, or the `ValueError` of one line that it raises; counted."""
    try:
        result = function()
    except ValueError as error:
        CASES[edge]["refused"] += 1
        message = str(error)
        assert message, "a refusal without a word"
        assert "\n" not in message, message
        return error
    CASES[edge]["answered"] += 1
    return result


def summary() -> str:
    """One line on all cases so far, or nothing."""
    edges = []
    for edge, ends in sorted(CASES.items()):
        counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        edges.append(f"{edge} {sum(ends.values())} ({counts})")
    total = sum(sum(ends.values()) for ends in CASES.values())
    return f"{total} cases of good and bad input tried: {'; '.join(edges)}" if edges else ""
