# pyright: reportMissingImports=false
"""The network of the BatchBALD paper in PyTorch, sampled and trained as the paper did.

The functions at the end run in a virtual environment with torch and without bbald_jax, each in a
process of its own (`reporting.measure`), for `benchmark_learner.py`.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.common import reporting


class ConsistentDropout(nn.Module):
    """Dropout: in training a mask for each point, then K masks that all points share, or none.

    Attributes:
      masks: `[K, ...]`, what the K networks multiply by; None for the deterministic network. With
        masks the batch is every point K times in a row.
    """

    def __init__(self, rate: float, training_dropout: Callable[..., Tensor]):
        super().__init__()
        self.rate, self.training_dropout = rate, training_dropout
        self.masks: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x [n * K, ...]` masked, or `[n, ...]` where there are no masks."""
        if self.training:
            return self.training_dropout(x, self.rate)
        if self.masks is None:
            return x
        # One pass over the activations: a little less than the paper's `masked_fill` and division.
        return (x.unflatten(0, (-1, len(self.masks))) * self.masks).flatten(0, 1)


class PaperCNN(nn.Module):
    """The network of `bbald_jax.PaperCNN`, its layers by the same names."""

    def __init__(self, num_classes: int = 10, dropout_rate: float = 0.5):
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 64, 5)
        self.dense_1, self.dense_2 = nn.Linear(1024, 128), nn.Linear(128, num_classes)
        self.dropout_1 = ConsistentDropout(dropout_rate, functional.dropout2d)
        self.dropout_2 = ConsistentDropout(dropout_rate, functional.dropout2d)
        self.dropout_3 = ConsistentDropout(dropout_rate, functional.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images `[n, 1, 28, 28]`."""
        x = functional.relu(functional.max_pool2d(self.dropout_1(self.conv_1(x)), 2))
        x = functional.relu(functional.max_pool2d(self.dropout_2(self.conv_2(x)), 2))
        x = functional.relu(self.dropout_3(self.dense_1(x.flatten(1))))
        return self.dense_2(x)

    def set_masks(self, mask_1: Tensor, mask_2: Tensor, mask_3: Tensor) -> None:
        """The K networks: masks `[K, 32]`, `[K, 64]` of channels, `[K, 128]` of units."""
        self.dropout_1.masks = mask_1[..., None, None]
        self.dropout_2.masks = mask_2[..., None, None]
        self.dropout_3.masks = mask_3


@torch.no_grad()
def sample_mc_dropout(network: PaperCNN, x: Tensor, num_samples: int, chunk_size: int) -> Tensor:
    """Log-probabilities `[N, K, C]` by the masks set, every point K times in the batch."""
    chunks = []
    for points in x.split(chunk_size):
        logits = network(points.repeat_interleave(num_samples, dim=0))
        chunks.append(functional.log_softmax(logits, dim=-1).unflatten(0, (-1, num_samples)))
    return torch.cat(chunks)


# The measurements; `path` is the file that `benchmark_learner.write_case` wrote.


def check(path: str) -> dict:
    """The largest differences from the function of bbald_jax with its parameters and masks."""
    torch.set_num_threads(reporting.NUM_THREADS)
    case = {name: torch.tensor(array) for name, array in np.load(path).items()}
    network = PaperCNN().eval()
    kernel = case["dense_1.kernel"].unflatten(0, (4, 4, 64))  # the pixels go before the channels
    case["dense_1.kernel"] = kernel.permute(2, 0, 1, 3).flatten(0, 2)
    parameters = {}
    for layer in ("conv_1", "conv_2", "dense_1", "dense_2"):
        kernel = case[f"{layer}.kernel"]
        parameters[f"{layer}.weight"] = kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        parameters[f"{layer}.bias"] = case[f"{layer}.bias"]
    network.load_state_dict(parameters)
    num_checked, num_samples, _ = case["log_probs"].shape
    x = _images(case["x"])[:num_checked]
    with torch.no_grad():
        logits = network(x)
    network.set_masks(case["mask_1"], case["mask_2"], case["mask_3"])
    log_probs = sample_mc_dropout(network, x, num_samples, chunk_size=3)
    return {
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "logits": float((logits - case["logits"]).abs().max()),
        "log_probs": float((log_probs - case["log_probs"]).abs().max()),
        "version": torch.__version__,
    }


def sample(path: str, num_samples: int, chunk_sizes: list[int], num_repeats: int) -> dict:
    """Milliseconds an image, for each chunk size: the median of some passes over the images."""
    torch.set_num_threads(reporting.NUM_THREADS)
    torch.manual_seed(0)
    x = _images(torch.tensor(np.load(path)["x"]))
    network = PaperCNN().eval()
    network.set_masks(
        *(torch.bernoulli(torch.full((num_samples, size), 0.5)) * 2 for size in (32, 64, 128))
    )
    milliseconds = []
    for chunk_size in chunk_sizes:
        sample_mc_dropout(network, x[:chunk_size], num_samples, chunk_size)  # warms up
        seconds = _median_seconds(
            lambda size=chunk_size: sample_mc_dropout(network, x, num_samples, size), num_repeats
        )
        milliseconds.append(1000 * seconds / len(x))
    return {"milliseconds": milliseconds}


def train(path: str, num_steps: int, batch_size: int, num_repeats: int) -> dict:
    """Milliseconds a step on one core: the median of some epochs, after one that warms up."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = np.load(path)
    x, y = _images(torch.tensor(case["x"])), torch.tensor(case["y"]).long()
    network = PaperCNN().train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch() -> None:
        for _ in range(num_steps):
            rows = torch.randint(len(x), (batch_size,))
            optimiser.zero_grad()
            functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()

    epoch()
    return {"milliseconds": 1000 * _median_seconds(epoch, num_repeats) / num_steps}


def _images(x: Tensor) -> Tensor:
    """`[n, h, w, 1]` as `[n, 1, h, w]`."""
    return x.permute(0, 3, 1, 2).contiguous()


def _median_seconds(call: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    reporting.is_measuring(check, sample, train)
