"""BatchBALD: the greedy batch of highest joint mutual information."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from bbald_jax.configurations import Configurations, branch, extend, gains, remaining_entropy, root
from bbald_jax.selection import first_mentions, invalid_points, without_pending
from bbald_jax.typing import Available, CandidateBatch, Diagnostics, Key, LogProbs, Pending
from bbald_jax.validation import assert_available, assert_log_probs, assert_positive


@partial(jax.jit, static_argnames=("batch_size", "num_configurations"))
def select_batchbald(
    key: Key,
    log_probs: LogProbs,
    *,
    batch_size: int,
    num_configurations: int = 10_000,
    available: Available | None = None,
    pending: Pending | None = None,
) -> CandidateBatch:
    """BatchBALD: B points whose *joint* labels tell most about the parameters, chosen greedily.

    n_i = argmax over n of  I[y_{n_1}, ..., y_{n_(i-1)}, y_n; w]

    The joint information is submodular, so greedy choice gets at least 1 - 1/e of the best batch.
    It is computed on the tree of `configurations.py`: exact for the K given samples while the
    configurations fit in `num_configurations` (`diagnostics.is_exact`), an unbiased Monte-Carlo
    estimate beyond.

    Args:
      key: for the thinning of the configurations; not used while they fit.
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      num_configurations: M, at least 1 (static); below about 1,000 the choice suffers.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        The batch is conditional on them, and they are not returned.

    Returns:
      B slots, in order of acquisition. `scores[i]` is I[y_{n_0}, ..., y_{n_i}; w | y_pending] in
      nats, at most log K; `gains[i]` what point i added. Gains are computed in float32 as
      differences of entropies, with an error of about 1e-6 nats. Equal gains go to the lowest
      index. Points with NaN are left out and counted in `diagnostics.num_invalid`.
      Memory beside the input: about 3 M (K + C) floats. Time: O(B N M K C).

    Raises:
      ValueError: `batch_size` or `num_configurations` below 1 (at trace time).

    Source: Kirsch, van Amersfoort, Gal (2019), algorithm 1; see `configurations.py`.
    """
    num_points, num_samples, num_classes = assert_log_probs(log_probs)
    assert_positive(batch_size=batch_size, num_configurations=num_configurations)
    is_invalid = invalid_points(log_probs)
    available = assert_available(available, num_points)
    available = without_pending(available & ~is_invalid, pending)
    pending = jnp.zeros(0, jnp.int32) if pending is None else pending
    # Two streams, so that the thinning of pending points and of chosen ones share no key.
    pending_key, batch_key = jax.random.split(key)

    # No more nodes than there can ever be.
    num_joint = batch_size + pending.size
    capacity = min(num_configurations, num_classes**num_joint)
    tree = root(num_samples, capacity, log_probs.dtype)

    def condition(tree: Configurations, step):
        step_key, index, is_first = step
        # A label that is not a number tells nothing: such a point is left out here too.
        is_usable = is_first & ~is_invalid[index]
        point = log_probs[index]
        return lax.cond(
            is_usable, lambda: extend(step_key, tree, point, branch(tree, point)), lambda: tree
        ), None

    steps = (
        jax.random.split(pending_key, pending.size),
        pending,
        first_mentions(pending, num_points),
    )
    if pending.size:  # an empty scan does not work without jit
        tree, _ = lax.scan(condition, tree, steps)
    prior_entropy = remaining_entropy(tree)

    def acquire(carry, step_key):
        tree, available, score = carry
        all_gains = jnp.where(available, gains(tree, log_probs), -jnp.inf)
        index = jnp.argmax(all_gains)
        is_found = available[index]

        def add():
            children = branch(tree, log_probs[index])
            after = prior_entropy - remaining_entropy(children)
            return extend(step_key, tree, log_probs[index], children), after

        next_tree, score = lax.cond(is_found, add, lambda: (tree, score))
        slot = (
            jnp.where(is_found, index, -1).astype(jnp.int32),
            score,
            jnp.where(is_found, all_gains[index], 0),
            tree.is_exact,
        )
        return (next_tree, available.at[index].set(False), score), slot

    start = (tree, available, jnp.zeros((), log_probs.dtype))
    _, slots = lax.scan(acquire, start, jax.random.split(batch_key, batch_size))
    indices, scores, batch_gains, is_exact = slots
    return CandidateBatch(
        indices=indices,
        scores=scores,
        gains=batch_gains,
        diagnostics=Diagnostics(jnp.sum(is_invalid).astype(jnp.int32), is_exact),
    )
