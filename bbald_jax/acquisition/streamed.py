"""Selections from pools that are larger than memory: read piece by piece, several times over."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.batchbald import Decision, choose_batch, ties_key_of
from bbald_jax.acquisition.certificate import CERTIFICATE_TOLERANCE, certify
from bbald_jax.acquisition.passes import Guess, Settled, StreamProgress, settle
from bbald_jax.acquisition.pieces import OnInvalid, Piece, Pieces, candidates_of
from bbald_jax.acquisition.verification import Found, examine, levels_of
from bbald_jax.typing import CandidateBatch, Key
from bbald_jax.validation import Kind, assert_positive


@partial(jax.jit, static_argnames=("kind", "num_upper"))
def _examine(levels: Any, values: Any, kind: Kind, num_upper: int, **options: Any) -> Found:
    return examine(levels, candidates_of(values, kind), num_upper=num_upper, **options)


@partial(jax.jit, static_argnames=("batch_size", "num_configurations"))
def _choose(key: Key, log_probs: Any, **options: Any) -> tuple[CandidateBatch, Decision | None]:
    return choose_batch(key, log_probs, keeps_decisions=True, **options)


class _BatchBALD(NamedTuple):
    """The parts of BatchBALD that `passes.settle` puts together; see `passes.Method`."""

    key: Key
    ties_key: Key
    batch_size: int
    num_configurations: int

    def rank(self, piece: Piece) -> Any:
        return piece.scores

    def guess(self, log_probs: Any, numbers: Any, available: Any, pending: Any) -> Guess:
        batch, decisions = _choose(
            self.key,
            log_probs,
            batch_size=self.batch_size,
            num_configurations=self.num_configurations,
            numbers=numbers,
            available=available,
            pending=pending,
        )
        assert decisions is not None
        gains, is_spent = np.asarray(decisions.gains), np.asarray(decisions.is_spent)
        enough = np.asarray(decisions.enough)
        num_steps = self.batch_size + 1
        # A batch that scores above what there is to know bounds nothing more.
        wants_all = np.isin(np.arange(num_steps), [0, self.batch_size])
        wants_all &= np.maximum(gains, 0).sum(axis=1) < enough
        is_open = ~is_spent
        is_open[-1] &= wants_all[-1]
        tolerance = np.zeros(num_steps)
        tolerance[-1] = CERTIFICATE_TOLERANCE * float(batch.scores[-1]) / self.batch_size
        return Guess(batch, gains, is_open, wants_all & is_open, tolerance, decisions)

    def prepare(self, guess: Guess, is_on: np.ndarray) -> Any:
        return levels_of(guess.details.tree, jnp.asarray(is_on))

    def examine(self, prepared: Any, piece: Piece, **options: Any) -> Found:
        return _examine(prepared, piece.values, piece.kind, self.batch_size, **options)

    def result(self, settled: Settled, pieces: Pieces) -> CandidateBatch:
        """The batch in the pool's numbers, with the certificate of the whole pool."""
        guess, decisions = settled.guess, settled.guess.details
        batch, diagnostics = guess.batch, guess.batch.diagnostics
        unknown = np.full(self.batch_size, np.inf, guess.gains.dtype)
        certificate = certify(
            decisions.enough[0],
            batch.scores[-1],
            *(jnp.asarray(settled.upper_gains.get(s, unknown)) for s in (0, self.batch_size)),
        )
        sizes = np.asarray(decisions.tree.size, np.float64)[:-1].sum()
        work = float(diagnostics.work_fraction) * len(settled.buffer.numbers) * sizes
        is_verified = guess.is_open[:-1] & (np.asarray(batch.indices) >= 0)
        is_verified &= np.arange(self.batch_size) < settled.num_settled
        return batch._replace(
            diagnostics=diagnostics._replace(
                num_invalid=jnp.int32(pieces.num_invalid),
                **certificate._asdict(),
                work_fraction=jnp.float32((work + settled.work) / (pieces.shape[0] * sizes)),
                num_verified=jnp.int32(is_verified.sum()),
                num_passes=jnp.int32(settled.num_passes),
            ),
        )


def select_stream(
    key: Key,
    source: Any,
    *,
    batch_size: int,
    kind: Kind = "log-probs",
    acquisition: str = "batchbald",
    num_configurations: int = 10_000,
    available: Any = None,
    pending: Any = None,
    buffer: int = 50_000,
    chunk_size: int = 16_384,
    max_passes: int | None = None,
    on_invalid: OnInvalid = "error",
    progress: Callable[[StreamProgress], None] | None = None,
) -> CandidateBatch:
    """The batch of `select_batchbald` from a pool that does not fit in memory."""
    assert_positive(
        batch_size=batch_size,
        num_configurations=num_configurations,
        buffer=buffer,
        chunk_size=chunk_size,
    )
    pieces = Pieces(source, kind, chunk_size, on_invalid)
    method = _BatchBALD(key, ties_key_of(key), batch_size, num_configurations)
    num_points = pieces.shape[0]
    pending = np.zeros(0, np.int64) if pending is None else np.asarray(pending, np.int64)
    settled = settle(
        method,
        pieces,
        batch_size=batch_size,
        buffer_size=buffer,
        available=None if available is None else np.asarray(available),
        pending=np.where((pending >= 0) & (pending < num_points), pending, -1),
        max_passes=max_passes,
        progress=progress,
    )
    batch = method.result(settled, pieces)
    places = np.asarray(batch.indices)
    numbers = np.where(places >= 0, settled.buffer.numbers[places], -1)
    return batch._replace(indices=jnp.asarray(numbers, jnp.int32))
