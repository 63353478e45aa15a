# pyright: reportMissingImports=false
"""BatchBALD as other libraries have it: how to install them, and how to call them.

`environment` makes a virtual environment for them. The other functions run in it, each in a
process of its own (`reporting.measure`), so that this file must import without any of them.
"""

import subprocess
import sys
import time
from pathlib import Path

from experiments.common import reporting

# torch goes first and alone. On Linux its default build brings CUDA along; give pip the index of
# CPU builds (by its own configuration) where that is not wanted.
_TORCH = "torch==2.13.0"
_PEERS = ("batchbald_redux==2.0.5", "scikit-activeml==1.0.1", "baal==2.1.0")
# Exactly what they import, installed with --no-deps: their stated dependencies include
# torchvision, matplotlib and more that BatchBALD does not need.
_DEPENDENCIES = (
    "numpy==2.4.6",
    "scipy==1.17.1",
    "tqdm==4.70.1",
    *("toma==1.1.0", "psutil==7.2.2"),  # batchbald_redux
    # scikit-activeml, and scikit-learn below it
    *("scikit-learn==1.9.1", "joblib==1.6.0", "cloudpickle==3.1.2"),
    *("threadpoolctl==3.8.0", "narwhals==2.29.0", "makefun==1.16.0"),
    # baal
    *("structlog==22.3.0", "pillow==13.0.0"),
    *("torchmetrics==1.9.0", "lightning-utilities==0.15.3", "packaging==26.3"),
)
VERSIONS = ", ".join((_TORCH, *_PEERS)).replace("==", " ")


def environment(folder: Path) -> Path:
    """The Python of the peers' virtual environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    is_complete = folder / "peers-installed"
    if not is_complete.exists():
        reporting.progress(f"installing the peers in {folder}")
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([*pip, _TORCH], check=True)
        subprocess.run([*pip, "--no-deps", *_DEPENDENCIES, *_PEERS], check=True)
        is_complete.touch()
    return python


def batchbald_redux(pool: str, num_points: int, batch_size: int, num_configurations: int) -> dict:
    import numpy as np
    import torch
    from batchbald_redux.batchbald import get_batchbald_batch

    torch.set_num_threads(reporting.NUM_THREADS)
    torch.manual_seed(0)
    log_probs = torch.tensor(np.load(pool, mmap_mode="r")[:num_points])
    start = time.perf_counter()
    batch = get_batchbald_batch(
        log_probs, batch_size, num_configurations, dtype=torch.float32, device="cpu"
    )
    return {"seconds": time.perf_counter() - start, "indices": batch.indices}


def scikit_activeml(pool: str, num_points: int, batch_size: int, num_configurations: int) -> dict:
    import numpy as np
    from skactiveml.pool import batch_bald
    from skactiveml.utils import rand_argmax

    probs = np.ascontiguousarray(_probs(pool, num_points).swapaxes(0, 1))
    start = time.perf_counter()
    utilities = batch_bald(probs, batch_size, n_MC_samples=num_configurations, random_state=0)
    seconds = time.perf_counter() - start
    # It returns no indices: they are found as `batch_bald` itself finds them, ties included.
    indices = [int(rand_argmax(utility, random_state=0)[0]) for utility in utilities]
    return {"seconds": seconds, "indices": indices}


def baal(pool: str, num_points: int, batch_size: int, num_configurations: int) -> dict:
    import numpy as np
    import torch
    from baal.active.heuristics import BatchBALD

    torch.set_num_threads(reporting.NUM_THREADS)
    torch.manual_seed(0)
    probs = np.ascontiguousarray(_probs(pool, num_points).swapaxes(1, 2))
    # Its batch is the best point of BALD and `num_samples` more; it draws `num_draw` configurations
    # for every posterior sample.
    heuristic = BatchBALD(batch_size - 1, num_draw=num_configurations // probs.shape[-1])
    start = time.perf_counter()
    ranks = heuristic(probs)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "indices": [int(index) for index in ranks[:batch_size]]}


def redux_scores(path: str, num_configurations: int, num_seeds: int) -> dict:
    """Joint scores, `[seeds, candidates]`, of some chosen points with each candidate in turn.

    As in its `get_batchbald_batch`, with another seed for each row, and in float64.
    """
    import numpy as np
    import torch
    from batchbald_redux.batchbald import compute_conditional_entropy
    from batchbald_redux.joint_entropy import SampledJointEntropy

    torch.set_num_threads(reporting.NUM_THREADS)
    arrays = np.load(path)
    chosen, candidates = (torch.tensor(arrays[x]).double() for x in ("chosen", "candidates"))
    shared = compute_conditional_entropy(chosen).sum()
    conditional = compute_conditional_entropy(candidates) + shared
    scores = []
    for seed in range(num_seeds):
        torch.manual_seed(seed)
        joint_entropy = SampledJointEntropy.sample(chosen.exp(), num_configurations)
        scores.append((joint_entropy.compute_batch(candidates) - conditional).tolist())
    return {"scores": scores}


def _probs(pool: str, num_points: int):
    """`[N, K, C]` in float64, never above one: baal would take such an array for logits."""
    import numpy as np

    probs = np.exp(np.load(pool, mmap_mode="r")[:num_points].astype(np.float64))
    return probs / probs.sum(axis=-1, keepdims=True)


if __name__ == "__main__":
    reporting.is_measuring(batchbald_redux, scikit_activeml, baal, redux_scores)
