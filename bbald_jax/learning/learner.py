"""`Learner`, the seam where whatever learns from labels plugs in."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from bbald_jax.information.gaussian import GaussianPosterior
from bbald_jax.pool import Labelled
from bbald_jax.typing import Key


class Learner(NamedTuple):
    """Anything that learns from labelled points and can be sampled: pure functions.

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
      needs_labels: True where a fit to no label says nothing about the points; the loop then draws
        the first batch at random.
      predict: `predict(state, x) -> [N, C]`, the log-probabilities by which it is evaluated; None
        for the mean of K samples.
      features: `features(state, x) -> [N, D]`, what it sees of a point; None for `x` itself.
      gaussian: `gaussian(state, x, x_target) -> GaussianPosterior`, for acquisition functions that
        require it; None where it has none.
    """

    init: Callable[[Key, Array], Any]
    fit: Callable[[Key, Any, Labelled, Labelled], Any]
    sample: Callable[[Key, Any, Array, int], Array]
    warm_start: bool = False
    needs_labels: bool = False
    predict: Callable[[Any, Array], Array] | None = None
    features: Callable[[Any, Array], Array] | None = None
    gaussian: Callable[[Any, Array, Array], GaussianPosterior] | None = None
