"""What a batch has to say about itself, in words: its certificate, and when it is arbitrary.

A batch is arbitrary where nothing that the function looks at tells the points apart. Three things
make it so, and none of them shows in the indices: the samples do not differ, the points do not, or
the samples are spent. The numbers come from `certificate.py` and from the predictions; whoever
shows a batch to a person shows these lines with it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bbald_jax.acquisition.certificate import BOUNDS, ROUNDING, SPENT, is_rounding
from bbald_jax.acquisition.inputs import Acquisition
from bbald_jax.acquisition.ties import SLACK
from bbald_jax.information.entropy import mutual_information
from bbald_jax.typing import BatchBALDDiagnostics, CandidateBatch, LogProbs

#: Scores (nats, or probabilities) and probabilities that differ by less are equal.
EQUAL = SLACK

#: Who would need as many samples had better take another function.
MOST_SAMPLES = 10_000

# They look at the mean over the samples, and do without a difference between them.
_OF_THE_MEAN = ("predictive-entropy", "margin", "variation-ratio")
# Elements of the predictions that are looked at together: a few milliseconds of work.
_CHUNK_ELEMENTS = 2**18


def arbitrary_batch(
    acquisition: Acquisition,
    log_probs: LogProbs | None,
    available: Bool[np.ndarray, "N"],
    batch: CandidateBatch,
) -> tuple[str, ...]:
    """Why a batch is arbitrary, in whole or from some point on, and what to do; mostly nothing.

    Reads the pool in small chunks, and no further than the first one that shows a difference. Looks
    at nothing for functions that require no predictions.

    Args:
      acquisition: the function that chose the batch.
      log_probs: `[N, K, C]`, what it chose from.
      available: `[N]`, the points that could be chosen.
      batch: what it chose; its unfilled slots may be there or not.

    Returns:
      One line each, for people.
    """
    if log_probs is None or "log_probs" not in acquisition.requires:
        return ()
    chosen = np.asarray(batch.indices)
    chosen = chosen[chosen >= 0]
    if not chosen.size:
        return ()
    differs = what_differs(log_probs, chosen, available)
    return arbitrary(acquisition.name, log_probs.shape[1], int(available.sum()), batch, differs)


def arbitrary(
    name: str,
    num_samples: int,
    num_available: int,
    batch: CandidateBatch,
    differs: tuple[bool, bool],
) -> tuple[str, ...]:
    """`arbitrary_batch` of a pool of which only this is at hand.

    Args:
      name: of the function that chose the batch.
      num_samples: K.
      num_available: points that could be chosen.
      batch: what it chose, at least one point.
      differs: by `what_differs`.
    """
    is_filled = np.asarray(batch.indices) >= 0
    indices, scores, gains = (np.asarray(values)[is_filled] for values in batch[:3])
    num_left = num_available - indices.size
    samples_differ, points_differ = differs
    lines = []
    if not samples_differ and (num_samples > 1 or name not in _OF_THE_MEAN):
        lines.append(_equal_samples(num_samples, name))
    if not points_differ and num_left:
        lines.append(
            f"The predictions are the same for all {indices.size + num_left} points: nothing tells "
            "them apart, and the batch is arbitrary. Fit the model more closely (for trees, fewer "
            "points in a leaf), or label points at random (random) until its predictions differ."
        )
    line = None
    if isinstance(batch.diagnostics, BatchBALDDiagnostics):
        if samples_differ:
            remaining = np.asarray(batch.diagnostics.remaining_entropy)[is_filled].tolist()
            line = spent_in_batch(num_samples, scores.tolist(), remaining)
            line = line or _nothing_more(gains.tolist(), num_left)
    elif not lines:
        line = _ties(name, scores, batch.diagnostics)
    return (*lines, line) if line else tuple(lines)


def _equal_samples(num_samples: int, name: str) -> str:
    if num_samples == 1:
        return (
            "K = 1: there is no other sample to disagree with, so no label tells anything, and the "
            "batch is arbitrary. Give more samples: dropout left on, or the members of an ensemble."
        )
    outcome = (
        f"{name} sees no more than one model would show it"
        if name in _OF_THE_MEAN
        else "no label can tell which is right, and the batch is arbitrary"
    )
    return (
        f"The K = {num_samples} posterior samples do not differ: {outcome}. Leave dropout on while "
        "sampling, with another mask for each sample, or give the members of an ensemble: not the "
        "same model K times."
    )


def what_differs(
    log_probs: LogProbs, chosen: Int[np.ndarray, "B"], available: Bool[np.ndarray, "N"]
) -> tuple[bool, bool]:
    """Whether the samples differ for any available point, and whether any two points do."""
    num_points, num_samples, num_classes = log_probs.shape
    rows = min(num_points, max(1, _CHUNK_ELEMENTS // (num_samples * num_classes)))
    # The chosen points first: where samples differ, they nearly always do for these.
    others = np.array(available, bool)
    others[chosen] = False
    points = np.concatenate([chosen, np.flatnonzero(others)])
    samples_differ = points_differ = False
    for start in range(0, points.size, rows):
        chunk = points[start : start + rows]
        chunk = np.pad(chunk, (0, rows - chunk.size), mode="edge")  # one shape, one compilation
        information, distance = _differences(log_probs, chunk, points[0])
        # What is not a number differs from everything.
        samples_differ |= not float(information) <= ROUNDING
        points_differ |= not float(distance) <= EQUAL
        if samples_differ and points_differ:
            break
    return samples_differ, points_differ


@jax.jit
def _differences(
    log_probs: LogProbs, points: Int[Array, "R"], first: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest I[y_n; w] of some points, and their probabilities' distance from the first's."""
    chunk = log_probs[points]
    distance = jnp.max(jnp.abs(jnp.exp(chunk) - jnp.exp(log_probs[first])))
    return jnp.max(mutual_information(chunk)), distance


def _nothing_more(gains: Sequence[float], num_left: int) -> str | None:
    """BatchBALD's samples are not spent, and yet no point of the pool tells them apart."""
    useful = [i + 1 for i, gain in enumerate(gains) if gain > ROUNDING]
    num_useful = max(useful, default=0)
    # The last place may go to the best of what is left, and with nothing left nothing was chosen.
    if num_useful == len(gains) or not num_left:
        return None
    return (
        f"After {num_useful} of {len(gains)} points no label tells anything more (gains below "
        f"{ROUNDING:g} nats), and the rest of the batch is arbitrary: many of the samples "
        "are the same model, on these points. Lower the batch size, or give samples that differ."
    )


def _ties(name: str, scores: Float[np.ndarray, "B"], diagnostics: Any) -> str | None:
    """Pointwise scores that are equal for more points than the batch has room for."""
    num_tied = int(getattr(diagnostics, "num_tied", 0))
    with np.errstate(invalid="ignore"):
        num_places = int(np.sum((np.abs(scores - scores[-1]) <= EQUAL) | (scores == scores[-1])))
    # In a large pool good scores lie close: that two share the last place means nothing.
    if num_tied <= num_places or (num_places == 1 and num_tied <= max(scores.size, 2)):
        return None
    return (
        f"{num_tied} points are tied for {num_places} of {scores.size} places (scores equal "
        f"within rounding), chosen among them at random by the seed: {name} does not tell them "
        "apart. Give more samples, or choose another acquisition function."
    )


def num_informed(scores: Sequence[float], remaining_entropy: Sequence[float]) -> int:
    """How many points of a batch were chosen while the K samples still had something to tell.

    Args:
      scores: `[B]`, of the batch so far, nats; may be empty.
      remaining_entropy: `[B]`, nats, what is unknown after each point.

    Returns:
      In 0 to B. The last point may leave nothing: no point after it is wasted.
    """
    if not len(remaining_entropy):
        return 0
    before = [scores[0] + remaining_entropy[0], *remaining_entropy[:-1]]
    return next((i for i, entropy in enumerate(before) if entropy < SPENT), len(before))


def spent_samples(
    num_samples: int, *, needed: float, subject: str, when: str, samples: str, size: str
) -> str:
    """The warning for those whose batch outran its K samples.

    Args:
      num_samples: K.
      needed: see `samples_needed`.
      subject: what the sentence begins with, to go before "K = ...".
      when: they were spent.
      samples: what to raise, by the name that K has where the reader is.
      size: what to lower.
    """
    fix = f"raise {samples} to {10 * num_samples}, or lower {size}"
    if needed >= MOST_SAMPLES:
        fix = (
            f"{samples} would have to be {MOST_SAMPLES:,} or more, so lower {size}, or use a "
            "function without this ceiling (batch-epig, gaussian-batchbald, power-bald)"
        )
    return (
        f"{subject} K = {num_samples} posterior samples were spent {when}; what follows was drawn "
        f"at random: {fix}."
    )


def samples_needed(num_samples: int, num_informed: int, num_chosen: int) -> float:
    """About how many samples a batch of that size needs, at least ten times those that it had.

    K samples hold log K nats. Where that was enough for i points, B points take `K^(B/i)` samples
    if all are worth the same (later ones are worth less).
    """
    powers = num_chosen / num_informed if num_informed else 1
    # In logarithms: the power itself overflows for batches of hundreds.
    return max(10.0 * num_samples, float(np.exp(min(powers * np.log(num_samples), 100))))


def spent_in_batch(
    num_samples: int, scores: Sequence[float], remaining_entropy: Sequence[float]
) -> str | None:
    """The warning of one batch, or None when its samples had something to tell to the end.

    Args:
      num_samples: K.
      scores: `[B]`, of the batch so far, nats.
      remaining_entropy: `[B]`, nats, what is unknown after each point.
    """
    informed, chosen = num_informed(scores, remaining_entropy), len(scores)
    if informed == chosen:
        return None
    when = f"after {informed} of {chosen} points" if informed else "before the first point"
    needed = samples_needed(num_samples, informed, chosen)
    return spent_samples(
        num_samples, needed=needed, subject="The", when=when, samples="K", size="the batch size"
    )


def certificate_line(batch_size: int, score: float, diagnostics: BatchBALDDiagnostics) -> str:
    """How near the batch comes to the best one at least, in one line; see `certificate.py`."""
    is_exact = bool(diagnostics.is_exact[-1])
    active, bound = int(diagnostics.active_bound), float(diagnostics.upper_bound)
    if is_rounding(bound, batch_size):
        return "nothing to certify: no batch tells more than rounding"
    # Then a high ratio says that the samples are exhausted, more than that the batch is good.
    meaning = ", all that the samples can tell" if active == 0 else ""
    return (
        f"score {score:.4f} nats ({'exact' if is_exact else 'estimated'}); no batch of "
        f"{batch_size} scores above {bound:.4f} ({BOUNDS[active]}{meaning}): at least "
        f"{float(diagnostics.certified_ratio):.1%} of the best, by these samples"
    )
