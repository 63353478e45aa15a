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


def margin(log_probs: Any) -> Array:
    """The smaller the difference of the two likeliest classes, the higher."""
    ordered = np.sort(to_probs(log_probs).mean(axis=1), axis=-1)
    second = ordered[:, -2] if ordered.shape[1] > 1 else 0
    return second - ordered[:, -1]


def variation_ratio(log_probs: Any) -> Array:
    return 1 - to_probs(log_probs).mean(axis=1).max(axis=-1)


def mean_std(log_probs: Any) -> Array:
    return to_probs(log_probs).std(axis=1).mean(axis=-1)


def pair_information(one: Any, other: Any) -> float:
    """`I[y; y']` of two points `[K, C]`, from the joint probabilities of their two labels."""
    both = np.stack([one, other])
    return float(predictive_entropy(both).sum()) - joint_entropy(both)


def epig(log_probs: Any, target_log_probs: Any) -> Array:
    log_probs, target_log_probs = np.asarray(log_probs), np.asarray(target_log_probs)
    return np.array(
        [np.mean([pair_information(x, t) for t in target_log_probs]) for x in log_probs]
    )


def kbald_gains(log_probs: Any, chosen: Sequence[int]) -> Array:
    log_probs = np.asarray(log_probs)
    shared = [[pair_information(x, log_probs[j]) for j in chosen] for x in log_probs]
    return mutual_information(log_probs) - np.sum(shared, axis=1)


def select_kbald(
    log_probs: Any, batch_size: int, available: Sequence[int], pending: Sequence[int] = ()
) -> tuple[list[int], list[float]]:
    """The greedy batch of 2-BALD and its gains; of gains within 1e-9 nats, the lowest index."""
    batch, gains = [], []
    candidates = [point for point in available if point not in pending]
    while candidates and len(batch) < batch_size:
        values = kbald_gains(log_probs, [*pending, *batch])[candidates]
        best = next(p for p, v in zip(candidates, values, strict=True) if v >= max(values) - 1e-9)
        batch.append(best)
        gains.append(float(max(values)))
        candidates.remove(best)
    return batch, gains


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


def head_rows(x: Any, pool: Any, centre: float) -> Array:
    """Rows of length 1, less `centre` times the mean of the pool's, of length 1 again."""

    def normalise(rows: Array) -> Array:
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(length > 0, length, 1)

    x, pool = np.asarray(x, np.float64), np.asarray(pool, np.float64)
    return normalise(normalise(x) - centre * normalise(pool).mean(axis=0))


def logistic_gradient(
    weights: Array, rows: Array, labels: Array, anchor: Array, prior_variance: float
) -> Array:
    """Of the cross-entropy plus `|w - anchor|^2 / (2 s2)`, `[D, C]`."""
    probs = softmax(rows @ weights)
    observed = np.eye(weights.shape[1])[np.asarray(labels)]
    return rows.T @ (probs - observed) + (weights - anchor) / prior_variance


def logistic_hessian(weights: Array, rows: Array, prior_variance: float) -> Array:
    """`[D C, D C]`, of the same."""
    hessian = np.eye(weights.size) / prior_variance
    for row, prob in zip(rows, softmax(rows @ weights), strict=True):
        hessian += np.kron(np.outer(row, row), np.diag(prob) - np.outer(prob, prob))
    return hessian


def logistic_map(rows: Array, labels: Array, anchor: Array, prior_variance: float) -> Array:
    """The minimum, by Newton's method with steps that are halved until they descend."""

    def loss(weights: Array) -> float:
        chosen = softmax(rows @ weights)[np.arange(len(rows)), np.asarray(labels)]
        return -np.log(chosen).sum() + ((weights - anchor) ** 2).sum() / (2 * prior_variance)

    weights = np.array(anchor, np.float64)
    for _ in range(100):
        slope = logistic_gradient(weights, rows, labels, anchor, prior_variance)
        if np.abs(slope).max() < 1e-10:
            return weights
        change = np.linalg.solve(logistic_hessian(weights, rows, prior_variance), slope.ravel())
        size = 1.0
        while loss(weights - size * change.reshape(slope.shape)) > loss(weights) + 1e-12:
            size /= 2
        weights = weights - size * change.reshape(slope.shape)
    raise AssertionError("Newton's method did not converge")


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def label_covariance(log_probs: Any) -> Array:
    """Of all one-hot labels, each without its last class, `[N (C-1), N (C-1)]`."""
    probs = to_probs(log_probs)[..., :-1]
    num_points, num_samples, num_contrasts = probs.shape
    mean = probs.mean(axis=1)
    centred = (probs - mean[:, None]).transpose(0, 2, 1).reshape(-1, num_samples)
    covariance = centred @ centred.T / num_samples
    for point in range(num_points):
        block = slice(point * num_contrasts, (point + 1) * num_contrasts)
        covariance[block, block] = np.diag(mean[point]) - np.outer(mean[point], mean[point])
    return covariance


def gaussian_joint_mutual_information(log_probs: Any) -> float:
    """BALD scores and the total correlation of Gaussian variables with the labels' moments."""
    covariance, num_contrasts = label_covariance(log_probs), np.shape(log_probs)[2] - 1
    total = np.linalg.slogdet(covariance)[1]
    for start in range(0, len(covariance), num_contrasts):
        block = slice(start, start + num_contrasts)
        total -= np.linalg.slogdet(covariance[block, block])[1]
    return float(mutual_information(log_probs).sum() + total / 2)


def gaussian_epig(log_probs: Any, chosen: Sequence[int], target_log_probs: Any) -> float:
    """Half of what the labels of `chosen` explain of each target's, averaged over the targets."""
    log_probs, total = np.asarray(log_probs)[list(chosen)], 0.0
    if not len(log_probs):
        return total
    num_contrasts = log_probs.shape[2] - 1
    size = len(log_probs) * num_contrasts
    for target in np.asarray(target_log_probs):
        covariance = label_covariance(np.concatenate([log_probs, target[None]]))
        # A target is another point than itself in the batch: what is shared is what K samples say.
        probs = to_probs(np.concatenate([log_probs, target[None]]))[..., :-1]
        centred = probs - probs.mean(axis=1, keepdims=True)
        shared = np.einsum("bkc,kd->bcd", centred[:-1], centred[-1]) / probs.shape[1]
        shared = shared.reshape(size, num_contrasts)
        explained = shared.T @ np.linalg.solve(covariance[:size, :size], shared)
        total += np.trace(np.linalg.solve(covariance[size:, size:], explained)) / 2
    return total / len(target_log_probs)


def posterior_covariance(factors: Array, weights: Array, chosen: Sequence[int]) -> Array:
    """Of Gaussian variables after noisy looks at some of them, whose noise is 1 / weight."""
    covariance = factors @ factors.T
    if not len(chosen):
        return covariance
    rows = covariance[:, list(chosen)]
    seen = covariance[np.ix_(chosen, chosen)] + np.diag(1 / weights[list(chosen)])
    return covariance - rows @ np.linalg.solve(seen, rows.T)


def gradients(features: Any, mean_log_probs: Any) -> Array:
    """`[N, C D]`, of the likeliest label's cross-entropy in the weights of the last layer."""
    features, probs = np.asarray(features, np.float64), to_probs(mean_log_probs)
    errors = probs - np.eye(probs.shape[1])[probs.argmax(axis=1)]
    return np.stack([np.outer(e, x).ravel() for e, x in zip(errors, features, strict=True)])


def k_centre(
    features: Any, batch_size: int, candidates: Sequence[int], centres: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Greedily the candidate farthest from all centres, and how far that was."""
    x = np.asarray(features, np.float64)
    batch, gains = [], []
    for _ in range(batch_size):
        left = [n for n in candidates if n not in batch]
        near = [min(float(np.linalg.norm(x[n] - x[j])) for j in [*centres, *batch]) for n in left]
        batch.append(left[int(np.argmax(near))])
        gains.append(float(max(near)))
    return batch, gains


def fisher_trace(features: Any, weights: Array, ridge: float, chosen: Sequence[int]) -> float:
    """`tr(M^-1 F)`, by solving with M; `weights [N, R, R]`, of rank 1, are the labels' information.

    The ridge is in units of the mean eigenvalue of F in the D directions that it has.
    """
    x = np.asarray(features, np.float64)
    each = np.stack([np.kron(w, np.outer(row, row)) for w, row in zip(weights, x, strict=True)])
    fisher = each.mean(axis=0)
    matrix = ridge * np.trace(fisher) / x.shape[1] * np.eye(len(fisher))
    return float(np.trace(np.linalg.solve(matrix + each[list(chosen)].sum(axis=0), fisher)))


def mean_weights(mean_log_probs: Any) -> Array:
    """`[N, 1, 1]`, the mean information of a contrast of classes."""
    probs = to_probs(mean_log_probs)
    return ((1 - (probs**2).sum(axis=1)) / (probs.shape[1] - 1))[:, None, None]


def select_bait(
    features: Any, mean_log_probs: Any, batch_size: int, candidates: Sequence[int], known: list[int]
) -> list[int]:
    """Forward to twice the size, backward to the size."""
    weights = mean_weights(mean_log_probs)

    def trace(batch: list[int]) -> float:
        return fisher_trace(features, weights, 1.0, [*known, *batch])

    batch: list[int] = []
    for _ in range(min(2 * batch_size, len(candidates))):
        left = [n for n in candidates if n not in batch]
        batch.append(min(left, key=lambda n: trace([*batch, n])))
    while len(batch) > batch_size:
        batch.remove(min(batch, key=lambda n: trace([m for m in batch if m != n])))
    return batch


def typicality(features: Any, clusters: Array) -> Array:
    """One over the mean distance to the 20 nearest in the cluster, or to half of the cluster."""
    x, found = np.asarray(features, np.float64), np.zeros(len(clusters))
    unit = 1e-5 * np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
    for n, cluster in enumerate(clusters):
        members = np.flatnonzero(clusters == cluster)
        distances = np.sort(np.linalg.norm(x[members] - x[n], axis=1))[1:]
        size = max(1, min(20, len(members) // 2))
        if distances.size:
            found[n] = 1 / (distances[:size].mean() + unit)
    return found


def select_typiclust(
    typicality: Array,
    clusters: Array,
    batch_size: int,
    candidates: Sequence[int],
    covered: Sequence[int],
) -> list[int]:
    """The most typical of the cluster with fewest covered points, the largest of these."""
    batch: list[int] = []
    for _ in range(batch_size):
        left = [n for n in candidates if n not in batch]

        def order(cluster: int) -> tuple[bool, int, int]:
            size = int((clusters == cluster).sum())
            covered_there = int((clusters[[*covered, *batch]] == cluster).sum())
            return size < 5, covered_there, -size

        lowest = min(order(clusters[n]) for n in left)
        in_it = [n for n in left if order(clusters[n]) == lowest]
        batch.append(max(in_it, key=lambda n: typicality[n]))
    return batch
