"""In words: when the samples are spent, and how good a batch is at least."""

from typing import Any

import numpy as np
import pytest

from bbald_jax.acquisition import warnings
from bbald_jax.typing import BatchBALDDiagnostics


@pytest.mark.parametrize(
    ("scores", "remaining", "num_informed"),
    [
        ([], [], 0),
        ([1.0, 2.0, 2.5], [1.5, 0.5, 0.2], 3),
        ([1.0, 2.0, 2.5], [1.5, 0.5, 0.0], 3),  # nothing is left, but nothing comes after it
        ([1.0, 2.0, 2.5], [1.5, 0.09, 0.0], 2),
        ([1.0, 2.0, 2.5], [0.05, 0.04, 0.03], 1),
        ([0.0, 0.0], [0.0, 0.0], 0),  # K = 1
        ([0.02, 0.03], [0.05, 0.04], 0),  # pending points left nothing
    ],
)
def test_points_are_informed_until_less_than_a_tenth_of_a_nat_is_left(
    scores: list[float], remaining: list[float], num_informed: int
):
    assert warnings.num_informed(scores, remaining) == num_informed


def test_the_warning_names_k_and_what_to_raise_it_to():
    line = warnings.spent_samples(
        20, subject="The", when="after 3 of 10 points", samples="K", size="the batch size"
    )
    assert line == (
        "The K = 20 posterior samples were spent after 3 of 10 points; what follows carries no "
        "information: raise K to 200, or lower the batch size."
    )


@pytest.mark.parametrize(
    ("active", "is_exact", "words"),
    [
        (0, True, ("exact", "prior entropy, all that the samples can tell")),
        (1, True, ("exact", "sum of single scores")),
        (2, False, ("estimated", "score plus next gains")),
    ],
)
def test_the_certificate_in_one_line(active: int, is_exact: bool, words: tuple[str, str]):
    fields: dict[str, Any] = dict.fromkeys(BatchBALDDiagnostics._fields, np.float32(0))
    fields |= {
        "is_exact": np.array([True, is_exact]),
        "upper_bound": np.float32(2.5),
        "active_bound": np.int32(active),
        "certified_ratio": np.float32(0.8),
    }
    line = warnings.certificate_line(2, 2.0, BatchBALDDiagnostics(**fields))
    assert line == (
        f"score 2.0000 nats ({words[0]}); no batch of 2 scores above 2.5000 ({words[1]}): at least "
        "80.0% of the best, by these samples"
    )
