"""`Learner`, the seam where whatever learns from labels plugs in."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from bbald_jax.pool import Labelled
from bbald_jax.typing import Key


class Learner(NamedTuple):
    """Anything that learns from labelled points and can be sampled: three pure functions.

    The loop calls them as they are, with concrete arrays: a learner in JAX jits its own functions
    (then a whole step of the loop can be jitted too); one that wraps another framework converts.

    Attributes:
      init: `init(key, x) -> state`, for inputs like `x [n, ...]`.
      fit: `fit(key, state, labelled, validation) -> state`, both `Labelled` buffers; a
        `validation.num_examples` of 0 means that there is none.
      sample: `sample(key, state, x, num_samples) -> log_probs [N, K, C]`. Sample k is the same
        function for every point, and depends on the key only: not on how x was cut into calls.
      warm_start: whether the loop hands `fit` the state after the last round, instead of a new
        one from `init`.
    """

    init: Callable[[Key, Array], Any]
    fit: Callable[[Key, Any, Labelled, Labelled], Any]
    sample: Callable[[Key, Any, Array, int], Array]
    warm_start: bool = False
