"""Where everything random in a trial comes from."""

import jax

from bbald_jax.experiment.config import Config
from bbald_jax.typing import Key

_PURPOSES = ("split", "run", "targets", "warm start")


def trial_key(config: Config, trial: int, purpose: str | None = None) -> Key:
    """Everything random in a trial comes from `fold_in(key(seed), trial)`."""
    key = jax.random.fold_in(jax.random.key(config.seed), trial)
    return key if purpose is None else jax.random.fold_in(key, _PURPOSES.index(purpose))
