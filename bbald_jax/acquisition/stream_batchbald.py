"""BatchBALD of a pool that is read in passes: what `passes.settle` needs of it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbald_jax.acquisition.batchbald import Decision, choose_batch
from bbald_jax.acquisition.certificate import CERTIFICATE_TOLERANCE, certify
from bbald_jax.acquisition.contest import Guess
from bbald_jax.acquisition.passes import Settled
from bbald_jax.acquisition.pieces import Piece, Pieces, candidates_of
from bbald_jax.acquisition.verification import Found, examine, levels_of
from bbald_jax.typing import CandidateBatch, Key
from bbald_jax.validation import Kind


@partial(jax.jit, static_argnames=("kind", "num_upper"))
def _examine(levels: Any, values: Any, kind: Kind, num_upper: int, **options: Any) -> Found:
    return examine(levels, candidates_of(values, kind), num_upper=num_upper, **options)


@partial(jax.jit, static_argnames=("batch_size", "num_configurations"))
def _choose(key: Key, log_probs: Any, **options: Any) -> tuple[CandidateBatch, Decision | None]:
    return choose_batch(key, log_probs, keeps_decisions=True, **options)


class BatchBALD(NamedTuple):
    """See `passes.Method`.

    Attributes:
      key: of the selection, as in `select_batchbald`.
      ties_key: `batchbald.ties_key_of(key)`.
      batch_size: B.
      num_configurations: M.
    """

    key: Key
    ties_key: Key
    batch_size: int
    num_configurations: int

    def rank(self, piece: Piece) -> Any:
        """BALD, which is the gain of the first step."""
        return piece.scores

    def guess(self, log_probs: Any, numbers: Any, available: Any, pending: Any) -> Guess:
        """The greedy batch of some points, with the trees of its B + 1 steps."""
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
        """Merged trees of the steps that are on."""
        return levels_of(guess.details.tree, jnp.asarray(is_on))

    def examine(self, prepared: Any, piece: Piece, **options: Any) -> Found:
        """See `verification.examine`."""
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
