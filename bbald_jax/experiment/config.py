"""What decides the result of an experiment."""

import dataclasses


class ConfigError(ValueError):
    """A configuration that its data set cannot serve; the message names the option and the fix."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides the result of an experiment; `bbald run --help` explains each."""

    dataset: str = "digits"
    learner: str = "dropout-network"
    features: str = "none"
    acquisition: str = "batchbald"
    acquisition_size: int = 10
    num_samples: int = 100
    num_configurations: int = 10_000
    num_rounds: int = 10
    target_accuracy: float | None = None
    initial_per_class: int = 2
    pool_size: int | None = None
    num_repeats: int = 3
    noise: float = 0.1
    recipe: str = "paper"
    seed: int = 0
    num_trials: int = 1
