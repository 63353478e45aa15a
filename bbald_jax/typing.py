"""The array types that every other module speaks, and the result of a selection.

Axes: `N` pool points, `K` posterior samples, `C` classes, `B` acquired points, `M` sampled class
configurations, `P` pending points, `D` features.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as _Key

#: `log p(y=c | x_n, w_k)`, natural logarithms, normalised over `C`. Index k means the same
#: parameter sample for every point: without that a joint score means nothing.
LogProbs = Float[Array, "N K C"]

#: A typed PRNG key (`jax.random.key`), never a legacy uint32 pair.
Key = _Key[Array, ""]

#: True where a point may be acquired.
Available = Bool[Array, "N"]

#: Indices of points that were chosen earlier and have no label yet, padded with -1.
Pending = Int[Array, "P"]


class Diagnostics(NamedTuple):
    """What a selection can tell about itself, beside its result.

    Attributes:
      num_invalid: `[]` int32, pool points with a NaN or an infinite probability. They are never
        selected: NaN wins every `argmax`.
      is_exact: `[B]` bool, True where the score is exact for the K given samples, False where it
        is a Monte-Carlo estimate (the configurations had been thinned before this point).
    """

    num_invalid: Int[Array, ""]
    is_exact: Bool[Array, "B"]


class CandidateBatch(NamedTuple):
    """B points chosen to be labelled, in order of acquisition.

    Unfilled slots (fewer than B points were available) have index -1, gain 0 and the previous
    score. A negative index wraps round in JAX: whoever acquires must leave out -1.

    Attributes:
      indices: `[B]` int32, positions in the array that was passed in, or -1.
      scores: `[B]`, what the acquisition function says of the batch so far (joint functions) or
        of this point alone (pointwise functions).
      gains: `[B]`, what this point added.
      diagnostics: see `Diagnostics`.
    """

    indices: Int[Array, "B"]
    scores: Float[Array, "B"]
    gains: Float[Array, "B"]
    diagnostics: Diagnostics
