"""Posterior samples of a PyTorch network with dropout: `sample_torch`."""

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from bbald_jax.learning.progress import progress
from bbald_jax.learning.torch_masks import find_site, shared_masks

#: Points in a forward pass, where they do not come in batches already.
_CHUNK_SIZE = 64
#: A point's logits may change with its batch by so much of what changes with the sample: rounding
#: is far below, a mask of its own far above.
_TOLERANCE = 0.05


def sample_torch(
    model: Any, inputs: Any, num_samples: int = 100, seed: int = 0
) -> Float[np.ndarray, "N K C"]:
    """Consistent MC dropout in PyTorch: the logits of K networks drawn by dropout, for N points.

    Sample k is the same network for every point, whatever batch the point comes in, whatever the
    length of that batch, and on every device: each mask is drawn for one point and repeated for
    all. Every dropout of the model is on, whatever mode it is in: torch's layers, functional ones
    (where they look at `self.training`), those inside attention, transformer and recurrent layers.
    Batch normalisation and all other layers predict as in evaluation mode. What a mask looks like
    is measured on the first batch, and what was sampled is checked there: the logits of its points
    must stay the same with other points, in another order.

    The model comes back as it was (mode and buffers), and so does torch's random state, also after
    an error. Attention is computed without its fused kernels, which draw masks of their own.

    Args:
      model: an `nn.Module` whose output, or its `.logits`, is `[n, C]`.
      inputs: a tensor `[N, ...]`; a mapping of such tensors, as a tokenizer returns it, called as
        `model(**batch)`; or an iterable of batches like these, in the order of the points (a
        `DataLoader` without `shuffle`). Batches may differ in length, if they are padded on the
        right. Tensors are moved to the device of the model's first parameter.
      num_samples: K, at least 2.
      seed: of the masks, in 0 to 2**32 - 1.

    Returns:
      `[N, K, C]` logits. Works in K forward passes for each batch (of 64 points, where `inputs` is
      no iterable of batches) and 5 for the first; memory beside the result: that of one of them.

    Raises:
      ValueError: inputs or outputs that are not as described; samples that do not vary; and what
        cannot be the same function for every point, by name: random operations that are no
        dropout, dropout in cuDNN's recurrent layers, masks that mix points, batches of several
        lengths where texts are padded on the left.
    """
    if not isinstance(num_samples, int | np.integer) or num_samples < 2:
        raise ValueError(f"num_samples: {num_samples!r} is not an integer of at least 2")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not an integer in 0 to 2**32 - 1")
    torch: Any = importlib.import_module("torch")
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: {type(model).__name__} is no torch.nn.Module")
    batches, num_batches = _batches(inputs)
    total = None if num_batches is None else num_batches * num_samples
    masks, results = shared_masks(model), []
    with _undone(model), progress("forward passes", total) as advance, torch.no_grad():
        for batch in _checked(batches):
            if not results:
                _measure(masks, model, batch)
            logits = []
            for k in range(num_samples):
                logits.append(_forward(masks, model, batch, (int(seed), k)))
                advance()
            results.append(np.stack(logits, axis=1))
            if len(results) == 1:
                _check(masks, model, batch, results[0], int(seed))
    if not results:
        raise ValueError("inputs: no batch came; pass at least one point")
    return np.concatenate(results)


# --- batches


def _batches(inputs: Any) -> tuple[Iterable[Any], int | None]:
    """Batches, and how many there are, if that is known."""
    torch: Any = importlib.import_module("torch")
    if isinstance(inputs, torch.Tensor | Mapping):
        num_points = _num_points(inputs)
        starts = range(0, num_points, _CHUNK_SIZE)
        return (_rows(inputs, slice(i, i + _CHUNK_SIZE)) for i in starts), len(starts)
    if isinstance(inputs, str | np.ndarray) or not isinstance(inputs, Iterable):
        raise ValueError(
            f"inputs: {type(inputs).__name__} is no tensor, mapping of tensors or iterable of such "
            "batches; torch.as_tensor makes tensors of arrays"
        )
    return inputs, len(inputs) if hasattr(inputs, "__len__") else None  # pyright: ignore[reportArgumentType]


def _checked(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, each as a tensor or a mapping; texts padded on the left have one length."""
    lengths, is_left_padded = set(), False
    for number, batch in enumerate(batches):
        if isinstance(batch, list | tuple):
            if len(batch) != 1:
                raise ValueError(
                    f"inputs: batch {number} is a {type(batch).__name__} of {len(batch)}; pass the "
                    "model's inputs only, as in (x for x, y in loader)"
                )
            (batch,) = batch
        _num_points(batch, f"batch {number}")
        if isinstance(batch, Mapping) and hasattr(batch.get("attention_mask"), "shape"):
            mask = batch["attention_mask"]
            lengths.add(int(mask.shape[-1]))
            is_left_padded |= bool(((mask[..., 0] == 0) & (mask != 0).any(-1)).any())
            if is_left_padded and len(lengths) > 1:
                raise ValueError(
                    f"inputs: batch {number}: texts are padded on the left, to several lengths, so "
                    "that no mask fits their tokens; pad on the right, or all to one length"
                )
        yield batch


def _num_points(batch: Any, name: str = "all") -> int:
    """n, the length of the first axis of every tensor."""
    torch: Any = importlib.import_module("torch")
    if not isinstance(batch, torch.Tensor | Mapping):
        raise ValueError(
            f"inputs: {name} is a {type(batch).__name__}, not a tensor or a mapping of tensors"
        )
    values = batch.values() if isinstance(batch, Mapping) else [batch]
    sizes = {value.shape[0] if value.ndim else 0 for value in values if torch.is_tensor(value)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"inputs: {name}: first axes of length {sorted(sizes)}; every tensor needs a row for "
            "each point, and there must be one (return_tensors='pt' for a tokenizer)"
        )
    return sizes.pop()


def _rows(batch: Any, rows: Any) -> Any:
    """Some points of a batch."""
    if isinstance(batch, Mapping):
        return {name: _rows(value, rows) for name, value in batch.items()}
    return batch[rows] if hasattr(batch, "ndim") else batch


# --- forward passes


def _forward(masks: Any, model: Any, batch: Any, words: tuple[int, ...]) -> np.ndarray:
    """Logits `[n, C]` of a batch by the network that `words` stand for."""
    torch: Any = importlib.import_module("torch")
    masks.words, masks.num_points, masks.shapes = words, _num_points(batch), []
    device = next((p.device for p in model.parameters()), None)
    if isinstance(batch, Mapping):
        moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        with masks:
            output = model(**moved)
    else:
        moved = batch.to(device)
        with masks:
            output = model(moved)
    if masks.sites is not None and len(masks.shapes) != len(masks.sites):
        raise ValueError(
            f"model: {type(model).__name__} draws {len(masks.shapes)} dropout masks for this batch "
            f"and drew {len(masks.sites)} for the first; pad all inputs to one length, or take out "
            "what skips layers"
        )
    logits = getattr(output, "logits", output)
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape[0] != masks.num_points or shape[1] < 2:
        shown = f"shape {shape}" if shape else f"type {type(logits).__name__}"
        raise ValueError(
            f"model: an output of {shown} for {masks.num_points} points, expected logits [n, C] "
            "with C of at least 2 (for one logit z: torch.stack([0 * z, z], dim=1))"
        )
    return (logits if logits.dtype == torch.float64 else logits.float()).cpu().numpy()


def _measure(masks: Any, model: Any, batch: Any) -> None:
    """Find out where the points are in each mask: the same network for other points tells."""
    shapes = []
    for points in (batch, _rows(batch, _others(_num_points(batch)))):
        _forward(masks, model, points, (0, 0))
        shapes.append((masks.shapes, masks.num_points))
    (drawn, num_points), (others, num_others) = shapes
    if len(drawn) != len(others):
        raise ValueError(
            f"model: {type(model).__name__} draws {len(drawn)} dropout masks for {num_points} "
            f"points and {len(others)} for {num_others} of them; take out what skips layers"
        )
    masks.sites = [
        find_site(shape, num_points, other, num_others)
        for shape, other in zip(drawn, others, strict=True)
    ]


def _others(num_points: int) -> list[int]:
    """Points of a batch, fewer of them and in another order; a single point twice."""
    return list(range(num_points - 1, 0, -1))[:3] or [0, 0]


def _check(masks: Any, model: Any, batch: Any, logits: np.ndarray, seed: int) -> None:
    """The samples of the first batch vary, and each is a function of the point alone."""
    name = type(model).__name__
    spread = _distance(logits[:, 1:], logits[:, :1])
    if spread <= 1e-6 * np.abs(logits, where=np.isfinite(logits), out=np.zeros_like(logits)).max():
        raise ValueError(
            f"model: the {logits.shape[1]} samples of {name} are all alike; it needs dropout with "
            "a rate above 0 (nn.Dropout(0.1), say, before the last layer)"
        )
    others = _others(len(logits))
    fewer = _rows(batch, others)
    again = [_forward(masks, model, fewer, (seed, k)) for k in range(min(3, logits.shape[1]))]
    moved = _distance(np.stack(again, axis=1), logits[others, : len(again)])
    if moved > _TOLERANCE * spread:
        raise ValueError(
            f"model: the logits of {name} for a point depend on the points beside it, by "
            f"{moved / spread:.0%} of what they change with the sample, so that no sample is one "
            "function of the point; look for random numbers from outside torch, fused kernels "
            "with dropout, layers that merge time steps and points, statistics over the batch"
        )


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the differences; an impossible class (-inf in both) makes none."""
    with np.errstate(invalid="ignore"):
        differences = np.where(one == other, 0, one - other)
    return float(np.sqrt(np.mean(np.square(differences))))


# --- the model as it was


@contextlib.contextmanager
def _undone(model: Any) -> Iterator[None]:
    """All dropout on and all else as in evaluation, until the end; then all is as it was."""
    torch: Any = importlib.import_module("torch")
    attention: Any = importlib.import_module("torch.nn.attention")
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (f"{path}.{name}".lstrip("."), module, name, buffer, buffer.clone())
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    changed = []
    # A `DataLoader` draws from the generators; the masks do not.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices), attention.sdpa_kernel(attention.SDPBackend.MATH):
        try:
            for module, _ in modes:
                module.training = _is_for_dropout(module)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for path, module, name, buffer, saved in buffers:
                if not _is_equal(getattr(module, name), saved):
                    changed.append(path)
                    with torch.no_grad():
                        setattr(module, name, buffer.copy_(saved))
    if changed:
        raise ValueError(
            f"model: the buffer {changed[0]!r} of {type(model).__name__} changes in training mode, "
            "so that the samples are no functions; use torch's own layers for what keeps "
            "statistics (the buffer is as it was)"
        )


def _is_equal(one: Any, other: Any) -> bool:
    """NaN is equal to NaN."""
    return one.shape == other.shape and bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def _is_for_dropout(module: Any) -> bool:
    """Whether training mode turns its dropout on, and nothing else of it."""
    nn: Any = importlib.import_module("torch.nn")
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return False
    if isinstance(module, nn.modules.dropout._DropoutNd | nn.RNNBase):
        return True
    # Torch's other layers without parts (RReLU, spectral normalisation) mean other things by it.
    is_part_of_torch = type(module).__module__.startswith("torch.nn.")
    return not is_part_of_torch or any(True for _ in module.children())
