"""Batch Bayesian active learning in pure JAX.

The scoring half (entropies, acquisition functions, selection) knows arrays and keys; the learning
half (models, training, the loop) is loaded only when one of its names is first used, so that
`import bbald_jax` loads neither flax nor optax.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bbald_jax.acquisition import Acquisition, Inputs, catalogue
from bbald_jax.batchbald import select_batchbald
from bbald_jax.configurations import (
    estimate_joint_mutual_information,
    joint_entropy,
    joint_mutual_information,
)
from bbald_jax.entropy import conditional_entropy, mutual_information, predictive_entropy
from bbald_jax.selection import select_bald, select_random, select_top
from bbald_jax.typing import CandidateBatch, Diagnostics
from bbald_jax.validation import check_log_probs, from_logits, from_probs

__version__ = "0.1.0"
