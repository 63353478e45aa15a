"""Telling somebody outside how far a selection is, point by point."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Bool, Int

from bbald_jax.acquisition.pool_axis import AxisName, pool_axis

#: Called on the host with the number of points chosen so far.
Progress = Callable[[int], None]


def report(
    progress: Progress | None,
    num_chosen: Int[Array, ""],
    is_found: Bool[Array, ""],
    axis_name: AxisName | None = None,
) -> None:
    """Tell, from inside compiled code, that one more point was chosen; nothing without a listener.

    The numbers that are computed do not depend on it. Of several devices the first one tells.
    """
    if progress is None:
        return

    def tell(num_chosen: Array, is_found: Array) -> None:
        if is_found:
            progress(int(num_chosen))

    if axis_name is not None:
        is_found &= pool_axis(axis_name, 1).is_first()
    # JAX has no order among the calls of several devices; there the steps themselves are one.
    jax.debug.callback(tell, num_chosen, is_found, ordered=axis_name is None)
