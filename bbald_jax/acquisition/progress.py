"""Telling somebody outside how far a selection is, point by point."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Bool, Int

#: Called on the host with the number of points chosen so far.
Progress = Callable[[int], None]


def report(
    progress: Progress | None, num_chosen: Int[Array, ""], is_found: Bool[Array, ""]
) -> None:
    """Tell, from inside compiled code, that one more point was chosen; nothing without a listener.

    The numbers that are computed do not depend on it.
    """
    if progress is None:
        return

    def tell(num_chosen: Array, is_found: Array) -> None:
        if is_found:
            progress(int(num_chosen))

    jax.debug.callback(tell, num_chosen, is_found, ordered=True)
