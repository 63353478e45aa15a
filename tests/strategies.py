"""What hypothesis draws: predictions with zeros, ties, near-copies and certainties."""

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

_LOGITS = st.one_of(st.floats(-30, 30), st.sampled_from([0.0, -np.inf, 100.0]))


def log_probs(num_points: int, num_samples: int, num_classes: int) -> st.SearchStrategy:
    """`[N, K, C]` float32; the shape is fixed, so that all examples share one compilation."""
    shape = (num_points, num_samples, num_classes)
    return hnp.arrays(np.float64, shape, elements=_LOGITS).map(_normalise)


def _normalise(logits: np.ndarray):
    is_impossible = np.all(logits == -np.inf, axis=-1, keepdims=True)
    logits = np.where(is_impossible, 0.0, logits)
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return jnp.asarray(log_probs, jnp.float32)
