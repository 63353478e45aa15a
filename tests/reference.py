"""Float64 brute force over all C^N configurations: slow, short, and written from the papers.

Kirsch, van Amersfoort, Gal (2019): the joint entropy is that of the C^N joint label
probabilities, the conditional entropies add up, and the joint mutual information is the
difference. Nothing here imports the library.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def entropy(probs: Array) -> Array:
    """`-sum_c p_c log p_c` over the last axis, in nats, with `0 log 0 = 0`."""
    return -np.sum(probs * np.log(np.where(probs > 0, probs, 1.0)), axis=-1)


def to_probs(log_probs: Any) -> Array:
    return np.exp(np.asarray(log_probs, np.float64))


def predictive_entropy(log_probs: Any) -> Array:
    return entropy(to_probs(log_probs).mean(axis=1))


def conditional_entropy(log_probs: Any) -> Array:
    return entropy(to_probs(log_probs)).mean(axis=1)


def mutual_information(log_probs: Any) -> Array:
    return predictive_entropy(log_probs) - conditional_entropy(log_probs)


def configuration_probs(log_probs: Any) -> Array:
    """`[C^N, K]`, p(y_1, ..., y_N | w_k) for every assignment of labels."""
    probs = to_probs(log_probs)
    num_points, num_samples, num_classes = probs.shape
    joint = []
    for labels in itertools.product(range(num_classes), repeat=num_points):
        likelihood = np.ones(num_samples)
        for point, label in enumerate(labels):
            likelihood = likelihood * probs[point, :, label]
        joint.append(likelihood)
    return np.array(joint)


def joint_entropy(log_probs: Any) -> float:
    return float(entropy(configuration_probs(log_probs).mean(axis=1)))


def joint_mutual_information(log_probs: Any) -> float:
    return joint_entropy(log_probs) - float(conditional_entropy(log_probs).sum())


def gain(log_probs: Any, chosen: Sequence[int], point: int) -> float:
    """What `point` adds to the joint mutual information of `chosen` (pending ones included)."""
    log_probs = np.asarray(log_probs)
    before = joint_mutual_information(log_probs[list(chosen)])
    return joint_mutual_information(log_probs[[*chosen, point]]) - before


def gains(log_probs: Any, chosen: Sequence[int]) -> Array:
    return np.array([gain(log_probs, chosen, point) for point in range(len(log_probs))])


def select_batchbald(
    log_probs: Any,
    batch_size: int,
    available: Sequence[bool] | None = None,
    pending: Sequence[int] = (),
) -> list[int]:
    """The greedy batch; of gains within 1e-9 nats, the lowest index."""
    candidates = [
        point
        for point in range(len(log_probs))
        if (available is None or available[point]) and point not in pending
    ]
    batch: list[int] = []
    while candidates and len(batch) < batch_size:
        values = [gain(log_probs, [*pending, *batch], point) for point in candidates]
        best = next(p for p, v in zip(candidates, values, strict=True) if v >= max(values) - 1e-9)
        batch.append(best)
        candidates.remove(best)
    return batch


def best_score(log_probs: Any, batch_size: int) -> float:
    """The joint mutual information of the best batch there is, by exhaustive search."""
    log_probs = np.asarray(log_probs)
    batches = itertools.combinations(range(len(log_probs)), batch_size)
    return max(joint_mutual_information(log_probs[list(batch)]) for batch in batches)
