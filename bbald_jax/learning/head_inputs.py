"""What the logistic head refuses, each in one line with its fix.

Outside of `jit`, which sees no values, and would turn away the rest in words of its own. Under
`jit` or `vmap` only shapes are looked at.
"""

from typing import Any

import numpy as np
from jax.core import Tracer

from bbald_jax.pool import Labelled

# Rows that are looked at together.
_CHUNK_ROWS = 4_096
# Rows of length 1 that are nearer to each other are the same, as are pools whose mean has a length
# so near to 1.
_SAME = 1e-6


def check_features(name: str, x: Any, num_features: int | None = None) -> None:
    """By their shape: dense, `[N, D]`, and with the D that the head has begun with.

    Raises:
      TypeError: sparse.
      ValueError: another shape.
    """
    if hasattr(x, "toarray"):
        raise TypeError(
            f"{name}: {type(x).__name__} is sparse, and the head needs dense features; take "
            "bb.text_features(texts), or scikit-learn's TruncatedSVD(256).fit_transform(x), or "
            "x.toarray() where it is small"
        )
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{name}: shape {shape} is not [N, D], a row of features a point; take "
            "bb.image_features for images, or x.reshape(len(x), -1)"
        )
    if num_features not in (None, shape[1]):  # one column would broadcast
        raise ValueError(
            f"{name}: {shape[1]} features a point, and the head was begun with {num_features}; "
            "give those of the pool, or begin again with learner.init(key, x)"
        )


def check_pool(x: Any) -> None:
    """Points that the head can tell apart: finite, and not all in one direction.

    Raises:
      ValueError: it names the first point that is not finite.
    """
    first, differ = None, False
    for start in range(0, len(x), _CHUNK_ROWS):
        rows = np.asarray(x[start : start + _CHUNK_ROWS]).astype(np.float32)
        _check_finite("x", rows, start)
        if differ:
            continue
        rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-37))
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-37))
        first = rows[:1] if first is None else first
        differ = bool((np.abs(rows - first) > _SAME).any())
    if not differ and len(x) > 1:
        raise ValueError(
            "x: all points have the same features, but for the length of their rows, which the "
            "head does not see; give features that differ, or of a single column other ones: "
            "1, x and x^2, say"
        )


def check_mean(mean: Any, x: Any) -> None:
    """`check_pool(x)`, where the mean of its rows of length 1 says that it may be needed."""
    if isinstance(mean, Tracer):
        return
    length = float(np.linalg.norm(np.asarray(mean)))
    if not 0 < length < 1 - _SAME:
        check_pool(x)


def check_labelled(labelled: Labelled, num_classes: int) -> None:
    """Labels that are classes, for all examples there are.

    Raises:
      ValueError: it names the first example that is wrong.
    """
    if len(labelled.x) != len(labelled.y):
        raise ValueError(
            f"labelled: {len(labelled.x)} rows of x and {len(labelled.y)} labels; give each row one"
        )
    if isinstance(labelled.y, Tracer) or isinstance(labelled.num_examples, Tracer):
        return
    y, num_examples = np.asarray(labelled.y), int(labelled.num_examples)
    if num_examples > len(y):
        raise ValueError(
            f"labelled.num_examples: {num_examples}, and its buffer holds {len(y)}; give a larger "
            "buffer"
        )
    if y.dtype.kind not in "iub":
        raise ValueError(f"labelled.y: {y.dtype} is no class; give integers from 0")
    is_wrong = (y[:num_examples] < 0) | (y[:num_examples] >= num_classes)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(
            f"labelled.y[{row}]: class {y[row]}, and the head has the classes 0 to "
            f"{num_classes - 1}; mend the label, or give bb.logistic_head another num_classes"
        )


def check_weights(weights: Any, labelled: Labelled) -> None:
    """Weights that are numbers; else says what made them none.

    Raises:
      ValueError: it names the first example that is not finite.
    """
    if isinstance(weights, Tracer) or np.isfinite(np.asarray(weights)).all():
        return
    _check_finite("labelled.x", np.asarray(labelled.x)[: int(labelled.num_examples)])
    raise ValueError(
        "prior_variance: too large for so many examples, in float32; give bb.logistic_head a "
        "smaller one"
    )


def _check_finite(name: str, rows: np.ndarray, start: int = 0) -> None:
    is_finite = np.isfinite(rows).all(axis=1)
    if not is_finite.all():
        row = start + int(is_finite.argmin())
        raise ValueError(f"{name}[{row}]: NaN or infinite; mend the point, or leave it out")
