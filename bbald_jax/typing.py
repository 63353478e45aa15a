"""The array types that every other module speaks, and the result of a selection.

Axes: `N` pool points, `K` posterior samples, `C` classes, `B` acquired points, `M` sampled class
configurations, `P` pending points, `T` target points, `D` features.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as _Key

#: `log p(y=c | x_n, w_k)`, natural logarithms, normalised over `C`. Index k means the same
#: parameter sample for every point: without that a joint score means nothing.
LogProbs = Float[Array, "N K C"]

#: The same for the target points of EPIG; index k means the same parameter sample as in the pool.
TargetLogProbs = Float[Array, "T K C"]

#: A typed PRNG key (`jax.random.key`), never a legacy uint32 pair.
Key = _Key[Array, ""]

#: True where a point may be acquired.
Available = Bool[Array, "N"]

#: Indices of points that were chosen earlier and have no label yet, padded with -1.
Pending = Int[Array, "P"]


#: `jax.Device`, which type checkers do not take for a class.
Device = Any


class Diagnostics(NamedTuple):
    """What a selection can tell about itself, beside its result.

    Attributes:
      num_invalid: `[]` int32, pool points with a NaN or an infinite probability. They are never
        selected: NaN wins every `argmax`.
      is_exact: `[B]` bool, True where the score is exact for the K given samples, False where it
        is a Monte-Carlo estimate (the configurations had been thinned before this point).
      num_tied: `[]` int32, available points, chosen ones included, whose score equals that of the
        last one chosen (within 1e-6 where a key chooses among equals). 0 from functions whose
        gains depend on the batch so far.
      num_verified: `[]` int32, from `select_stream`: how many of the points, the first ones, are
        those of a selection with the whole pool in memory.
      num_passes: `[]` int32, from `select_stream`: how often the source was read.
    """

    num_invalid: Int[Array, ""]
    is_exact: Bool[Array, "B"]
    num_tied: Int[Array, ""]
    num_verified: Int[Array, ""] | None = None
    num_passes: Int[Array, ""] | None = None


class BatchBALDDiagnostics(NamedTuple):
    """What BatchBALD can tell about its batch; all relative to the K given samples.

    Attributes:
      num_invalid: `[]` int32, see `Diagnostics`.
      is_exact: `[B]` bool, see `Diagnostics`.
      upper_bound: `[]`, nats, no batch of B points has a higher score (see
        `acquisition/certificate.py`); exact while the configurations are, an estimate once they
        were thinned.
      active_bound: `[]` int32, which bound that is, an index into `certificate.BOUNDS`. When it is
        the prior entropy, a high ratio says that the samples are exhausted, more than that the
        batch is good.
      certified_ratio: `[]`, score / upper_bound, in [0, 1]; 1 where both are no more than rounding.
      remaining_entropy: `[B]`, nats, what the labels of the batch so far (and of pending points)
        leave unknown about which sample is true; log K - score without pending points. Below
        about 0.1 the samples are spent: later points carry no information, and K should be
        raised.
      effective_configurations: `[]`, how many nodes share the remaining entropy at the end,
        `(sum a)^2 / sum a^2` with `a = v H(w)`.
      work_fraction: `[]`, evaluations of a point on a node, on merged nodes and for the
        certificate too, over those of a dense evaluation of every point in each of the B steps.
      num_verified: `[]` int32, from `select_stream`: how many of the points, the first ones, are
        those of a selection with the whole pool in memory. Points that were chosen when the samples
        were spent are none of them: in memory nothing tells these apart either.
      num_passes: `[]` int32, see `Diagnostics`.
    """

    num_invalid: Int[Array, ""]
    is_exact: Bool[Array, "B"]
    upper_bound: Float[Array, ""]
    active_bound: Int[Array, ""]
    certified_ratio: Float[Array, ""]
    remaining_entropy: Float[Array, "B"]
    effective_configurations: Float[Array, ""]
    work_fraction: Float[Array, ""]
    num_verified: Int[Array, ""] | None = None
    num_passes: Int[Array, ""] | None = None


class CandidateBatch(NamedTuple):
    """B points chosen to be labelled, in order of acquisition.

    Unfilled slots (fewer than B points were available) have index -1, gain 0 and the previous
    score. A negative index wraps round in JAX: whoever acquires must leave out -1.

    Attributes:
      indices: `[B]` int32, positions in the array that was passed in, or -1.
      scores: `[B]`, what the acquisition function says of the batch so far (joint functions) or
        of this point alone (pointwise functions).
      gains: `[B]`, what this point added.
      diagnostics: `Diagnostics`, or for `select_batchbald` `BatchBALDDiagnostics`.
    """

    indices: Int[Array, "B"]
    scores: Float[Array, "B"]
    gains: Float[Array, "B"]
    diagnostics: Any
