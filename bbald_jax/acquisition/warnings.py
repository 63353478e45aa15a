"""What a batch has to say about itself, in words: its certificate, and when its samples are spent.

The numbers come from `certificate.py`; whoever shows a batch to a person shows these lines with it.
"""

from collections.abc import Sequence

from bbald_jax.acquisition.certificate import BOUNDS, SPENT
from bbald_jax.typing import BatchBALDDiagnostics


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


def spent_samples(num_samples: int, *, subject: str, when: str, samples: str, size: str) -> str:
    """The warning for those whose batch outran its K samples.

    Args:
      num_samples: K.
      subject: what the sentence begins with, to go before "K = ...".
      when: they were spent.
      samples: what to raise, by the name that K has where the reader is.
      size: what to lower.
    """
    return (
        f"{subject} K = {num_samples} posterior samples were spent {when}; what follows carries "
        f"no information: raise {samples} to {10 * num_samples}, or lower {size}."
    )


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
    return spent_samples(num_samples, subject="The", when=when, samples="K", size="the batch size")


def certificate_line(batch_size: int, score: float, diagnostics: BatchBALDDiagnostics) -> str:
    """How near the batch comes to the best one at least, in one line; see `certificate.py`."""
    is_exact = bool(diagnostics.is_exact[-1])
    active = int(diagnostics.active_bound)
    # Then a high ratio says that the samples are exhausted, more than that the batch is good.
    meaning = ", all that the samples can tell" if active == 0 else ""
    return (
        f"score {score:.4f} nats ({'exact' if is_exact else 'estimated'}); no batch of "
        f"{batch_size} scores above {float(diagnostics.upper_bound):.4f} ({BOUNDS[active]}"
        f"{meaning}): at least {float(diagnostics.certified_ratio):.1%} of the best, "
        "by these samples"
    )
