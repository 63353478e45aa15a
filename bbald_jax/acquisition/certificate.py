"""How good a greedy batch is at least, and how much its K samples still have to say.

The joint mutual information f is monotone and submodular, so adding any B points to the greedy
batch S gains at most the sum of their separate gains at S. With OPT the best batch of B points:

    OPT <= log K                              no batch tells more than there is to know
    OPT <= sum of the B largest I[y_n; w]     labels never tell more together than apart
    OPT <= f(S) + sum of the B largest gains at S

The least of the three usually says far more than greedy's guarantee, f(S) >= (1 - 1/e) OPT. All of
it is relative to the K given samples; exact while the tree is, an estimate once it was thinned.

Source: Nemhauser, Wolsey, Fisher (1978), "An analysis of approximations for maximizing submodular
set functions", prop. 4.1 and section 4; Leskovec et al. (2007), "Cost-effective outbreak detection
in networks", theorem 4 (the bound from the data).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bbald_jax.information.configurations import Configurations

#: The bounds in the order of `Certificate.active_bound`.
BOUNDS = ("prior entropy", "sum of single scores", "score plus next gains")

#: The sum of the next gains is an upper bound that exceeds them by at most this part of the score.
CERTIFICATE_TOLERANCE = 1e-3

#: With less remaining entropy than this, nats, the K samples are spent: what further points seem to
#: tell is which of a few samples is the true one, and none of them is.
SPENT = 0.1

#: A point whose label tells less than this, nats, tells nothing: the scores of points that tell
#: nothing at all differ by up to a tenth of it in float32.
ROUNDING = 1e-5


class Certificate(NamedTuple):
    """An upper bound on the score of the best batch, and how near the greedy one comes.

    Attributes:
      upper_bound: `[]`, nats.
      active_bound: `[]`, which bound it is: an index into `BOUNDS`.
      certified_ratio: `[]`, score / upper_bound, in [0, 1]; 1 where the bound is rounding
        (`is_rounding`): there is nothing to certify, as no batch tells anything.
    """

    upper_bound: Float[Array, ""]
    active_bound: Int[Array, ""]
    certified_ratio: Float[Array, ""]


def certify(
    prior_entropy: Float[Array, ""],
    score: Float[Array, ""],
    first_gains: Float[Array, "B"],
    last_gains: Float[Array, "B"],
) -> Certificate:
    """The certificate of a greedy batch.

    Args:
      prior_entropy: `[]`, what there was to know: log K, less what pending points will tell.
      score: `[]`, f(S).
      first_gains: `[B]`, the largest gains before the first point; `-inf` where there are none.
      last_gains: `[B]`, the largest gains of the points left over, after the last.
    """
    bounds = jnp.stack(
        [
            prior_entropy,
            jnp.sum(jnp.maximum(first_gains, 0)),
            score + jnp.sum(jnp.maximum(last_gains, 0)),
        ]
    )
    active = jnp.argmin(bounds)
    # Rounding may put an exact bound a little below the score itself.
    bound = jnp.maximum(bounds[active], score)
    # Both are differences of entropies: near zero their ratio may be anything, and below zero.
    is_nothing = is_rounding(bound, first_gains.size)
    ratio = jnp.where(is_nothing, 1, jnp.clip(score / bound, 0, 1))
    return Certificate(bound, active.astype(jnp.int32), ratio)


def is_rounding(bound: Any, batch_size: int) -> Any:
    """Whether an upper bound on the score of B points is no more than the rounding of B gains."""
    return bound <= batch_size * ROUNDING


def effective_configurations(tree: Configurations) -> Float[Array, ""]:
    """How many nodes share the remaining entropy: `(sum_m a[m])^2 / sum_m a[m]^2`, a = v H(w).

    Kish's effective sample size, of what is still unknown. Far below M, few configurations decide
    every gain; 0 when nothing is unknown any more.
    """
    priorities = tree.masses * tree.entropies
    squares = jnp.sum(priorities**2)
    return jnp.where(squares > 0, jnp.sum(priorities) ** 2 / squares, 0)
