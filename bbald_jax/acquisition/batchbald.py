"""BatchBALD: the greedy batch of highest joint mutual information."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.certificate import (
    CERTIFICATE_TOLERANCE,
    SPENT,
    certify,
    effective_configurations,
)
from bbald_jax.acquisition.pool_axis import AxisName, pool_axis
from bbald_jax.acquisition.progress import Progress, report
from bbald_jax.acquisition.search import best_gains
from bbald_jax.acquisition.ties import first_of_equals, priorities
from bbald_jax.acquisition.top import usable_pending, without_pending
from bbald_jax.information.configurations import (
    Configurations,
    branch,
    extend,
    remaining_entropy,
    root,
)
from bbald_jax.information.gains import candidates
from bbald_jax.masks import count
from bbald_jax.typing import (
    Available,
    BatchBALDDiagnostics,
    CandidateBatch,
    Key,
    LogProbs,
    Pending,
)
from bbald_jax.validation import assert_available, assert_log_probs, assert_positive


class Decision(NamedTuple):
    """What one step of a selection was decided by.

    Attributes:
      tree: before the step.
      gains: `[B]`, the best gains on that tree, best first: all of them right in the first step and
        after the last point (within the certificate's tolerance), else the first one.
      enough: `[]`, what is left to know: gains that add up to more bound nothing.
      is_spent: `[]`, no gain was looked at: the point was drawn at random.
    """

    tree: Configurations
    gains: Float[Array, "B"]
    enough: Float[Array, ""]
    is_spent: Bool[Array, ""]


class _Slot(NamedTuple):
    """One acquired point, as it goes into the batch."""

    point: Int[Array, ""]
    gain: Float[Array, ""]
    is_exact: Bool[Array, ""]
    remaining_entropy: Float[Array, ""]
    upper_gains: Float[Array, "B"]
    work: Float[Array, ""]
    num_nodes: Int[Array, ""]
    decision: Decision | None


class _Choice(NamedTuple):
    """What a step takes, and what it has seen of the gains."""

    point: Int[Array, ""]
    gain: Float[Array, ""]
    bounds: Float[Array, "N"]
    gains: Float[Array, "B"]
    work: Float[Array, ""]


class _State(NamedTuple):
    """What one acquisition hands to the next."""

    tree: Configurations
    available: Available
    remaining: Float[Array, ""]
    hint: Float[Array, "N"]


@partial(
    jax.jit,
    static_argnames=("batch_size", "num_configurations", "use_bounds", "progress", "axis_name"),
)
def select_batchbald(
    key: Key,
    log_probs: LogProbs,
    *,
    batch_size: int,
    num_configurations: int = 10_000,
    available: Available | None = None,
    pending: Pending | None = None,
    use_bounds: bool = True,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
) -> CandidateBatch:
    """BatchBALD: B points whose *joint* labels tell most about the parameters, chosen greedily.

    n_i = argmax over n of  I[y_{n_1}, ..., y_{n_(i-1)}, y_n; w]

    The joint information is submodular, so greedy choice gets at least 1 - 1/e of the best batch.
    It is computed on the tree of `information/configurations.py`: exact for the K given samples
    while the configurations fit in `num_configurations` (`diagnostics.is_exact`), an unbiased
    Monte-Carlo estimate beyond.

    K samples hold log K nats. Once they leave less than 0.1 nats unknown they are spent: what is
    left to tell is which of a few samples is the true one, and none of them is. The other points of
    the batch are then drawn at random, without a search (`diagnostics.remaining_entropy` shows
    where, and `arbitrary_batch` says it in words). With 100 samples that was as good as going on,
    for a fraction of the time; the gains of Gaussian BatchBALD instead were below random labels on
    some data (`experiments/results/which_function/one_shot.md`).

    Args:
      key: for the thinning of the configurations, for the order of points that gain the same, and
        for the points that are drawn at random.
      log_probs: `[N, K, C]`, log p(y=c | x_n, w_k), normalised over C.
      batch_size: B, at least 1 (static); it may exceed N.
      num_configurations: M, at least 1 (static); below about 1,000 the choice suffers.
      available: `[N]` bool, the points to choose from; all of them by default.
      pending: `[P]`, indices of points chosen earlier whose labels are still out, padded with -1.
        The batch is conditional on them, and they are not returned.
      use_bounds: False evaluates every candidate on every configuration (static): the same batch
        (while gains are above their rounding), for many times the work; to measure what the
        bounds save.
      progress: called on the host after each point, with the number of points chosen so far
        (static: another function is another compilation; not under `vmap`).
      axis_name: of the mesh axis along which the points lie (static), for use inside your own
        `jax.shard_map(..., check_vma=False)`: N is then this device's share, `available` its mask,
        and `key` and `pending` are the same everywhere, as is the batch that every device returns;
        indices are those of the whole pool. `select_sharded` does all that.

    Returns:
      B slots, in order of acquisition. `scores[i]` is I[y_{n_0}, ..., y_{n_i}; w | y_pending] in
      nats, at most log K; `gains[i]` what point i added. Gains are computed in float32 as
      differences of entropies, with an error of about 1e-6 nats; of points whose gains differ by no
      more, one is drawn at random. Points with NaN are left out and counted in
      `diagnostics.num_invalid`. `diagnostics` is `BatchBALDDiagnostics`: a certificate, what
      remains unknown, the work.
      Memory beside the input: about 2 N K (C + 1) + 6 M (K + C) floats and the tiles of
      `tiling.py`.
      Time: O(B N M K C) times `work_fraction`.

    Raises:
      ValueError: `batch_size` or `num_configurations` below 1 (at trace time).

    Source: Kirsch, van Amersfoort, Gal (2019), algorithm 1; see `information/configurations.py`.
    """
    batch, _ = choose_batch(
        key,
        log_probs,
        batch_size=batch_size,
        num_configurations=num_configurations,
        available=available,
        pending=pending,
        use_bounds=use_bounds,
        progress=progress,
        axis_name=axis_name,
    )
    return batch


def ties_key_of(key: Key) -> Key:
    """The key of a selection's priorities among points that gain the same."""
    return jax.random.split(key, 3)[2]


def choose_batch(
    key: Key,
    log_probs: LogProbs,
    *,
    batch_size: int,
    num_configurations: int,
    available: Available | None,
    pending: Pending | None,
    use_bounds: bool = True,
    progress: Progress | None = None,
    axis_name: AxisName | None = None,
    numbers: Int[Array, "N"] | None = None,
    keeps_decisions: bool = False,
) -> tuple[CandidateBatch, Decision | None]:
    """What `select_batchbald` returns, and what each step was decided by.

    Args:
      key: as there, and so are the next ones.
      log_probs: see there.
      batch_size: see there.
      num_configurations: see there.
      available: see there.
      pending: see there.
      use_bounds: see there.
      progress: see there.
      axis_name: see there.
      numbers: `[N]`, what the points are called in the pool that these are a part of: the key's
        priorities go by that. Their positions by default.
      keeps_decisions: return the decisions of all B + 1 steps, stacked (static): (B + 1) M K
        floats. The last one is what is left after the last point.
    """
    num_points, num_samples, num_classes = assert_log_probs(log_probs)
    axis = pool_axis(axis_name, num_points)
    assert_positive(batch_size=batch_size, num_configurations=num_configurations)
    pool = candidates(log_probs)
    # A NaN or an infinite probability makes the entropy of its sample one too.
    is_invalid = ~jnp.isfinite(jnp.sum(pool.entropies, axis=-1))
    available = assert_available(available, num_points)
    available = without_pending(available & ~is_invalid, pending, axis_name)
    pending = jnp.zeros(0, jnp.int32) if pending is None else pending
    # Streams of their own, so that no two purposes share a key.
    pending_key, batch_key, ties_key = jax.random.split(key, 3)
    priority = priorities(ties_key, axis.indices() if numbers is None else numbers)

    def join(tree: Configurations, step_key: Key, point) -> tuple[Configurations, Array]:
        """The tree with one more point, and the entropy that then remains."""
        children = branch(tree, point)
        return extend(step_key, tree, point, children), remaining_entropy(children)

    # No more nodes than there can ever be.
    capacity = min(num_configurations, num_classes ** (batch_size + pending.size))
    tree = root(num_samples, capacity, log_probs.dtype)
    if pending.size:
        conditions, num_conditions = usable_pending(pending, is_invalid, axis_name)

        def condition(i, tree: Configurations) -> Configurations:
            point = axis.row(log_probs, conditions[i])
            return join(tree, jax.random.fold_in(pending_key, i), point)[0]

        tree = lax.fori_loop(0, num_conditions, condition, tree)
    prior_entropy = remaining_entropy(tree)
    no_hint = jnp.full(num_points, jnp.inf, log_probs.dtype)

    def step(state: _State, inputs):
        """Add the point of the best gain; after the last one, only look at what is left."""
        step_key, num_chosen = inputs
        is_over = num_chosen == batch_size
        score = prior_entropy - state.remaining

        def look() -> _Choice:
            best = best_gains(
                state.tree,
                pool,
                state.available,
                num_best=batch_size,
                # The certificate needs the first and the last B gains, unless they add up to more
                # than there is left to know: then they bound nothing. The choice needs only the
                # best one.
                num_wanted=jnp.where(is_over | (num_chosen == 0), batch_size, 1),
                num_needed=jnp.where(is_over, 0, 1),
                enough=state.remaining,
                tolerance=jnp.where(is_over, CERTIFICATE_TOLERANCE * score / batch_size, 0),
                hint=state.hint,
                priority=priority,
                use_bounds=use_bounds,
                axis_name=axis_name,
            )
            return _Choice(best.chosen, best.gain, best.bounds, best.gains, best.work)

        def draw() -> _Choice:
            """A random point: nothing is known of any gain but that it is no more than is left."""
            index = first_of_equals(state.available, priority, axis_name)
            is_left = axis.row(state.available, index)
            gain = jnp.where(is_left, state.remaining, -jnp.inf)
            no_gains = jnp.full(min(batch_size, num_points), -jnp.inf, log_probs.dtype)
            return _Choice(index, gain, no_hint, no_gains, jnp.zeros((), log_probs.dtype))

        is_spent = state.remaining < SPENT
        index, gain, bounds, best, work = lax.cond(is_spent, draw, look)
        is_found = (gain > -jnp.inf) & ~is_over
        point = axis.row(log_probs, index)
        tree, remaining = lax.cond(
            is_found,
            lambda: join(state.tree, step_key, point),
            lambda: (state.tree, state.remaining),
        )
        # The devices must agree on when the samples are spent, whatever their rounding.
        remaining = axis.max(remaining)
        gain = jnp.where(is_spent, jnp.maximum(state.remaining - remaining, 0), gain)
        report(progress, num_chosen + 1, is_found, axis_name)
        slot = _Slot(
            point=jnp.where(is_found, index, -1),
            gain=jnp.where(is_found, gain, 0),
            is_exact=state.tree.is_exact,
            remaining_entropy=remaining,
            upper_gains=lax.top_k(bounds, min(batch_size, num_points))[0],
            work=work,
            num_nodes=state.tree.size,
            decision=Decision(state.tree, best, state.remaining, is_spent)
            if keeps_decisions
            else None,
        )
        place = axis.place(index)
        available = state.available.at[place].set(state.available[place] & ~is_found)
        return _State(tree, available, remaining, bounds), slot

    state = _State(tree, available, prior_entropy, no_hint)
    keys = jax.random.split(batch_key, batch_size + 1)
    state, slots = lax.scan(step, state, (keys, jnp.arange(batch_size + 1)))
    chosen = jax.tree.map(lambda leaf: leaf[:batch_size], slots)
    scores = prior_entropy - chosen.remaining_entropy
    # The certificate's gains: one exchange, after the last step.
    num_best = min(batch_size, axis.num_points)
    first_gains, last_gains = (axis.best(slots.upper_gains[i], num_best) for i in (0, -1))
    certificate = certify(prior_entropy, scores[-1], first_gains, last_gains)
    dense_work = axis.num_points * jnp.sum(chosen.num_nodes.astype(log_probs.dtype))
    batch = CandidateBatch(
        indices=chosen.point,
        scores=scores,
        gains=chosen.gain,
        diagnostics=BatchBALDDiagnostics(
            num_invalid=axis.sum(count(is_invalid)),
            is_exact=chosen.is_exact,
            **certificate._asdict(),
            remaining_entropy=chosen.remaining_entropy,
            effective_configurations=effective_configurations(state.tree),
            work_fraction=axis.sum(jnp.sum(slots.work)) / dense_work,
        ),
    )
    return batch, slots.decision
