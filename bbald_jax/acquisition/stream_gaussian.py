"""The joint scores in Gaussian form of a pool that is read in passes.

Their state is `P_S` of `information/gaussian.py`, what the batch so far leaves unknown: unlike a
thinned tree it moves little with rounding, so it is made again from the points that were chosen.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from bbald_jax.acquisition.batch_epig import explained, select_batch_epig
from bbald_jax.acquisition.contest import Guess
from bbald_jax.acquisition.gaussian_batchbald import select_gaussian_batchbald
from bbald_jax.acquisition.passes import Settled
from bbald_jax.acquisition.pieces import Piece, Pieces, information, normalised
from bbald_jax.acquisition.ties import SLACK, first_of_equals
from bbald_jax.acquisition.verification import NUM_REPORTED, Found
from bbald_jax.information.gaussian import covariance, learn, log_determinant, residuals
from bbald_jax.masks import true_positions
from bbald_jax.typing import CandidateBatch, Key, LogProbs, TargetLogProbs

_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)

# Points that are evaluated together.
_BLOCK = 256

Evaluate = Callable[[LogProbs, Float[Array, "K K"]], Float[Array, "n"]]


class GaussianBatchBALD(NamedTuple):
    """See `passes.Method`: gains only fall, from a point's own information on.

    Attributes:
      ties_key: the key of the selection.
      batch_size: B.
    """

    ties_key: Key
    batch_size: int

    def rank(self, piece: Piece) -> Any:
        """BALD, the gain of the first step."""
        return piece.scores

    def guess(self, log_probs: Any, numbers: Any, available: Any, pending: Any) -> Guess:
        """The greedy batch of some points."""
        options = {"available": available, "pending": pending, "numbers": numbers}
        batch = select_gaussian_batchbald(
            log_probs, batch_size=self.batch_size, key=self.ties_key, **options
        )
        return _guess_of(batch, log_probs, pending)

    def prepare(self, guess: Guess, is_on: np.ndarray) -> Any:
        """`P_S` before every step."""
        return guess.details

    def examine(self, prepared: Any, piece: Piece, **options: Any) -> Found:
        """Exact gains of the points that can still win."""
        return _examine_falling(prepared, piece.values, piece.kind, **options)

    def result(self, settled: Settled, pieces: Pieces) -> CandidateBatch:
        """The batch, with what was found on the way."""
        return _result_of(settled, pieces)


class BatchEPIG(NamedTuple):
    """See `passes.Method`: gains may rise, so that every point is evaluated at every step.

    Attributes:
      ties_key: the key of the selection.
      batch_size: B.
      target_log_probs: `[T, K, C]`.
      wanted: `[K, K]`, by `batch_epig.wanted_of`.
    """

    ties_key: Key
    batch_size: int
    target_log_probs: TargetLogProbs
    wanted: Float[Array, "K K"]

    def rank(self, piece: Piece) -> Any:
        """The gain of the first step, were nothing pending."""
        scores = np.asarray(_first_gains(self.wanted, piece.values, piece.kind))
        return scores[: len(piece.rows)]

    def guess(self, log_probs: Any, numbers: Any, available: Any, pending: Any) -> Guess:
        """The greedy batch of some points."""
        options = {"available": available, "pending": pending, "numbers": numbers}
        batch = select_batch_epig(
            log_probs,
            self.target_log_probs,
            batch_size=self.batch_size,
            key=self.ties_key,
            **options,
        )
        return _guess_of(batch, log_probs, pending)

    def prepare(self, guess: Guess, is_on: np.ndarray) -> Any:
        """`P_S` before every step."""
        return guess.details

    def examine(self, prepared: Any, piece: Piece, **options: Any) -> Found:
        """Exact gains of all points."""
        return _examine_all(prepared, self.wanted, piece.values, piece.kind, **options)

    def result(self, settled: Settled, pieces: Pieces) -> CandidateBatch:
        """The batch, with what was found on the way."""
        return _result_of(settled, pieces)


def _guess_of(batch: CandidateBatch, log_probs: LogProbs, pending: Any) -> Guess:
    places = np.asarray(batch.indices)
    before = np.zeros(0, np.int64) if pending is None else np.asarray(pending)
    # Each once, in order: what the selection has learned of before the first point.
    before = np.array([p for i, p in enumerate(before) if p >= 0 and p not in before[:i]], int)
    learned = np.concatenate([before, places])
    unknown = _unknown(log_probs[jnp.asarray(learned)], jnp.asarray(learned >= 0))
    is_filled = places >= 0
    nothing = np.zeros(len(places))
    gains = np.asarray(batch.gains)[:, None]
    return Guess(batch, gains, is_filled, nothing > 0, nothing, unknown[len(before) :])


@jax.jit
def _unknown(points: LogProbs, is_used: Bool[Array, "S"]) -> Float[Array, "S K K"]:
    """`P_S` before each of the points is learned of."""

    def step(unknown: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        point, is_used = inputs
        learnt = learn(residuals(point[None])[0], unknown)
        return jnp.where(is_used, learnt, unknown), unknown

    return lax.scan(step, jnp.eye(points.shape[1]), (points, is_used))[1]


def _result_of(settled: Settled, pieces: Pieces) -> CandidateBatch:
    guess = settled.guess
    is_verified = guess.is_open & (np.arange(len(guess.is_open)) < settled.num_settled)
    return guess.batch._replace(
        diagnostics=guess.batch.diagnostics._replace(
            num_invalid=jnp.int32(pieces.num_invalid),
            num_verified=jnp.int32(is_verified.sum()),
            num_passes=jnp.int32(settled.num_passes),
        )
    )


@partial(jax.jit, static_argnames="kind")
def _examine_falling(
    unknown: Float[Array, "S K K"], values: Any, kind: Any, *, available: Any, **options: Any
) -> Found:
    alone = information(values, kind)[0]
    log_probs = normalised(values, kind)

    def evaluate(points: LogProbs, unknown: Array) -> Array:
        return log_determinant(covariance(residuals(points), unknown)) / 2

    def gains_of(bounds: Array, unknown: Array, threshold: Array) -> tuple[Array, Array]:
        is_open = available & (bounds > threshold)
        shared = _at(is_open, log_probs, lambda points: evaluate(points, unknown))
        gains = jnp.minimum(jnp.maximum(alone + shared, 0), bounds)
        return jnp.where(is_open, gains, bounds), jnp.where(is_open, gains, -jnp.inf)

    return _found(gains_of, alone, unknown, **options)


@partial(jax.jit, static_argnames="kind")
def _examine_all(
    unknown: Float[Array, "S K K"],
    wanted: Float[Array, "K K"],
    values: Any,
    kind: Any,
    *,
    available: Any,
    **options: Any,
) -> Found:
    log_probs = normalised(values, kind)

    def evaluate(points: LogProbs, unknown: Array) -> Array:
        """`1/2 trace( V_n^-1 A_n P B P A_n' )`."""
        rows = residuals(points)
        half = _einsum("nrk,kl->nrl", rows, unknown)
        useful = _einsum("nrl,nsl->nrs", _einsum("nrk,kl->nrl", half, wanted), half)
        return explained(covariance(rows, unknown), useful)

    def gains_of(state: Array, unknown: Array, threshold: Array) -> tuple[Array, Array]:
        is_open = available & (threshold < jnp.inf)
        gains = _at(is_open, log_probs, lambda points: evaluate(points, unknown))
        return state, jnp.where(is_open & (gains > threshold), gains, -jnp.inf)

    return _found(gains_of, jnp.zeros((), log_probs.dtype), unknown, **options)


@partial(jax.jit, static_argnames="kind")
def _first_gains(wanted: Float[Array, "K K"], values: Any, kind: Any) -> Float[Array, "n"]:
    """`1/2 trace( A_n B A_n' )`."""
    rows = residuals(normalised(values, kind))
    return _einsum("nrk,nrk->n", _einsum("nrk,kl->nrl", rows, wanted), rows) / 2


def _at(
    is_open: Bool[Array, "n"], log_probs: LogProbs, evaluate: Callable[[LogProbs], Array]
) -> Float[Array, "n"]:
    """`evaluate` of the points that are open, a block at a time; 0 for the others."""
    num_points = len(log_probs)
    block = min(_BLOCK, num_points)
    places = true_positions(is_open, size=num_points, fill_value=num_points)

    def add(i: Array, result: Array) -> Array:
        start = jnp.minimum(i * block, num_points - block)  # the last one ends with the array
        here = lax.dynamic_slice_in_dim(places, start, block)
        points = log_probs.at[here].get(mode="clip")
        return result.at[here].set(evaluate(points), mode="drop")

    num_blocks = -(-jnp.sum(is_open) // block)
    return lax.fori_loop(0, num_blocks, add, jnp.zeros(num_points, log_probs.dtype))


def _found(
    gains_of: Callable[[Any, Array, Array], tuple[Any, Array]],
    start: Any,
    unknown: Float[Array, "S K K"],
    *,
    priority: Any,
    thresholds: Any,
    bests: Any,
) -> Found:
    """The steps one after the other; see `verification.examine`."""
    num_reported = min(NUM_REPORTED, len(priority))

    def step(state: Any, inputs: tuple[Array, Array, Array]) -> tuple[Any, Found]:
        unknown, threshold, best = inputs
        state, exact = gains_of(state, unknown, threshold)
        top, places = lax.top_k(exact, num_reported)
        is_equal = exact >= jnp.maximum(best, top[0]) - SLACK
        first = first_of_equals(is_equal, priority)
        first_gain = jnp.where(is_equal[first], exact[first], -jnp.inf)
        work = jnp.sum(exact > -jnp.inf).astype(exact.dtype)
        return state, Found(top, places.astype(jnp.int32), first, first_gain, exact[:0], work)

    _, found = lax.scan(step, start, (unknown, thresholds, bests))
    return found._replace(work=jnp.sum(found.work))
