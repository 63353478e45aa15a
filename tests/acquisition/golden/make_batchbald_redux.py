"""Writes batchbald_redux.json: what batchbald_redux 2.0.5 computes from small fixed inputs.

Run it in a virtual environment of its own (the library and its tests need neither package):

    pip install torch==2.13.0 batchbald_redux==2.0.5
    python tests/acquisition/golden/make_batchbald_redux.py

Everything is exact and in double precision, in nats, computed from exactly the `log_probs` that
are recorded. Each case holds:

    log_probs             [N, K, C]
    predictive_entropy    [N]
    conditional_entropy   [N]
    bald                  [N], their difference
    joint_entropy         [N], of the first 1, 2, ..., N points
    batchbald_indices     [B], greedy choices
    batchbald_scores      [B], joint mutual information of the first 1, 2, ..., B choices
    batchbald_gaps        [B], the choice's score over that of the best point that could have been
                          chosen instead and has other predictions; null where there is none
"""

# pyright: reportMissingImports=false

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchbald_redux import batchbald
from batchbald_redux.joint_entropy import ExactJointEntropy

OUTPUT = Path(__file__).with_name("batchbald_redux.json")
BATCH_SIZE = 3


def dirichlet_log_probs(seed: int, N: int, K: int, C: int) -> np.ndarray:
    """Returns `[N, K, C]`, smooth: uniform on the simplex."""
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.ones(C), size=(N, K)))


def peaked_log_probs(seed: int, N: int, K: int, C: int, temperature: float) -> np.ndarray:
    """Returns `[N, K, C]`, log-softmax of standard normal logits divided by `temperature`."""
    logits = np.random.default_rng(seed).normal(size=(N, K, C)) / temperature
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def make_inputs() -> dict[str, np.ndarray]:
    """Returns the `[N, K, C]` log-probabilities of each case."""
    return {
        "smooth": dirichlet_log_probs(0, N=4, K=5, C=3),
        "peaked": peaked_log_probs(1, N=5, K=10, C=4, temperature=0.1),
        "binary": dirichlet_log_probs(2, N=8, K=6, C=2),
        # BALD picks both copies of the first point, BatchBALD takes one.
        "duplicates": peaked_log_probs(9, N=3, K=10, C=3, temperature=0.3)[[0, 1, 0, 2]],
        "one_posterior_sample": dirichlet_log_probs(4, N=4, K=1, C=3),
        "many_classes": dirichlet_log_probs(5, N=3, K=20, C=10),
    }


def joint_entropies(log_probs: torch.Tensor) -> list[float]:
    """Returns the joint entropy of the first 1, 2, ..., N points."""
    joint_entropy = ExactJointEntropy.empty(log_probs.shape[1], dtype=torch.double)
    return [joint_entropy.add_variables(point[None]).compute().item() for point in log_probs]


def step_gaps(log_probs: torch.Tensor, indices: Sequence[int]) -> list[float | None]:
    """Returns by how much each greedy choice beats the best point with other predictions.

    Args:
      log_probs: `[N, K, C]`.
      indices: `[B]`, the choices, in order.
    """
    conditional_entropy = batchbald.compute_conditional_entropy(log_probs)
    chosen_so_far = ExactJointEntropy.empty(log_probs.shape[1], dtype=torch.double)
    gaps: list[float | None] = []
    for step, index in enumerate(indices):
        # What the points chosen so far contribute is the same for all, and cancels.
        scores = chosen_so_far.compute_batch(log_probs) - conditional_entropy
        rivals = [
            n
            for n in range(len(log_probs))
            if n not in indices[:step] and not torch.equal(log_probs[n], log_probs[index])
        ]
        gaps.append((scores[index] - scores[rivals].max()).item() if rivals else None)
        chosen_so_far.add_variables(log_probs[index][None])
    return gaps


def golden_case(log_probs: np.ndarray) -> dict[str, Any]:
    """Returns the record of one case, as the module's docstring lists it."""
    assert log_probs.dtype == np.float64
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1.0, rtol=1e-14)

    tensor = torch.from_numpy(log_probs)
    predictive_entropy = batchbald.compute_entropy(tensor)
    conditional_entropy = batchbald.compute_conditional_entropy(tensor)
    # As many configurations as there are keep it exact; without the dtype it works in float32.
    batch = batchbald.get_batchbald_batch(
        tensor, BATCH_SIZE, num_samples=tensor.shape[-1] ** BATCH_SIZE, dtype=torch.double
    )
    return {
        "log_probs": log_probs.tolist(),
        "predictive_entropy": predictive_entropy.tolist(),
        "conditional_entropy": conditional_entropy.tolist(),
        "bald": (predictive_entropy - conditional_entropy).tolist(),
        "joint_entropy": joint_entropies(tensor),
        "batchbald_indices": batch.indices,
        "batchbald_scores": batch.scores,
        "batchbald_gaps": step_gaps(tensor, batch.indices),
    }


def main() -> None:
    """Computes every case and writes the file."""
    golden = {
        "versions": {
            package: metadata.version(package).split("+")[0]
            for package in ("batchbald_redux", "torch", "numpy")
        },
        "cases": {name: golden_case(log_probs) for name, log_probs in make_inputs().items()},
    }
    OUTPUT.write_text(json.dumps(golden, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
