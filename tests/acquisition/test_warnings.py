"""In words: when a batch is arbitrary and why, and how good it is at least."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bbald_jax as bb
from bbald_jax.acquisition import warnings
from bbald_jax.acquisition.top import select_top
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


@pytest.mark.parametrize(
    ("num_samples", "informed", "chosen", "needed"),
    [
        (20, 3, 4, 200),
        (20, 5, 10, 400),
        (20, 3, 10, 20 ** (10 / 3)),
        (1, 0, 10, 10),
        (100, 1, 10**6, np.exp(100)),  # the power itself is no float
    ],
)
def test_log_k_is_what_k_samples_can_tell(
    num_samples: int, informed: int, chosen: int, needed: float
):
    assert warnings.samples_needed(num_samples, informed, chosen) == pytest.approx(needed)


@pytest.mark.parametrize(
    ("needed", "fix"),
    [
        (9_999.0, "raise K to 200, or lower the batch size."),
        (
            10_000.0,
            "K would have to be 10,000 or more, so lower the batch size, or use a function without "
            "this ceiling (batch-epig, gaussian-batchbald, power-bald).",
        ),
    ],
)
def test_the_warning_names_k_and_what_to_raise_it_to(needed: float, fix: str):
    line = warnings.spent_samples(
        20,
        needed=needed,
        subject="The",
        when="after 3 of 10 points",
        samples="K",
        size="the batch size",
    )
    start = "The K = 20 posterior samples were spent after 3 of 10 points; what follows was drawn "
    assert line == f"{start}at random: {fix}"
    assert {"batch-epig", "gaussian-batchbald", "power-bald"} <= set(bb.catalogue())


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


def test_a_bound_of_rounding_certifies_nothing():
    fields: dict[str, Any] = dict.fromkeys(BatchBALDDiagnostics._fields, np.float32(0))
    fields |= {"is_exact": np.array([True]), "upper_bound": np.float32(1.5e-5)}
    line = warnings.certificate_line(10, -2e-6, BatchBALDDiagnostics(**fields))
    assert line == "nothing to certify: no batch tells more than rounding"


N, K, C, B = 40, 4, 3, 3
GOOD = np.random.default_rng(0).dirichlet(np.ones(C), size=(N, K))
OF_THE_MEAN = {"predictive-entropy", "margin", "variation-ratio"}


def words(probs: np.ndarray, name: str | bb.Acquisition, **options: Any) -> tuple[str, ...]:
    targets = {"targets": probs} if name in ("epig", "batch-epig") else {}
    settings = {"batch_size": B, "num_configurations": 64, **targets, **options}
    return bb.select(probs, kind="probs", acquisition=name, **settings).warnings


@pytest.mark.parametrize(
    "name", [n for n, f in bb.catalogue().items() if not {"features", "gaussian"} & {*f.requires}]
)
def test_every_function_says_why_its_batch_is_arbitrary(name: str):
    equal_samples = np.repeat(GOOD[:, :1], K, axis=1)
    # Rounding, too, is no difference.
    equal_samples = equal_samples + np.random.default_rng(1).uniform(-1e-6, 1e-6, GOOD.shape)
    equal_points = np.repeat(GOOD[:1], N, axis=0)
    assert words(GOOD, name) == ()
    if name == "random":
        assert words(equal_points, name) == words(equal_samples, name) == ()
        return
    (line,) = words(equal_samples, name)
    assert "The K = 4 posterior samples do not differ" in line
    assert "Leave dropout on" in line
    assert ("arbitrary" in line) == (name not in OF_THE_MEAN)
    (line,) = words(equal_points, name)
    assert "predictions are the same for all 40 points" in line
    if name == "batchbald":
        return  # see test_selection.py: it would be compiled once more
    # One sample is enough for those that look at the mean.
    lines = words(GOOD[:, :1], name)
    assert len(lines) == (name not in OF_THE_MEAN)
    assert all(line.startswith("K = 1: ") for line in lines)


def test_only_what_can_be_chosen_counts():
    probs = np.repeat(GOOD[:1], N, axis=0)
    probs[7] = GOOD[7]
    assert "same for all 39 points" in words(probs, "bald", exclude=[7])[0]
    assert words(probs, "bald") != words(probs, "bald", exclude=[7])
    # Where there is no choice, none is arbitrary.
    assert words(probs, "bald", candidates=[0, 1, 2]) == ()


def test_the_last_point_of_a_large_pool_may_make_the_difference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "_CHUNK_ELEMENTS", 16 * K * C)
    log_probs = jnp.repeat(bb.from_probs(GOOD[:1]), N, axis=0)
    chosen, everything = np.arange(3), np.ones(N, bool)
    for point in (3, 20, N - 1):
        other = log_probs.at[point].set(bb.from_probs(GOOD)[1])
        assert warnings.what_differs(other, chosen, everything) == (True, True)
    assert warnings.what_differs(log_probs, chosen, everything) == (True, False)
    certain = jnp.zeros((N, K, 1))
    assert warnings.what_differs(certain, chosen, everything) == (False, False)
    broken = certain.at[N - 1].set(jnp.nan)
    assert warnings.what_differs(broken, chosen, everything) == (True, True)


def test_ties_at_the_cut_are_counted():
    """One point is better than the others, of which 30 are equal."""
    probs = np.repeat(GOOD[:1], N, axis=0)
    probs[:10] = [0.9, 0.1, 0]
    probs[3] = 1 / 3
    probs[10:] = np.eye(C)[[0, 1, 2, 0]]
    for name in ("predictive-entropy", "margin", "variation-ratio"):
        (line,) = words(probs, name)
        assert "30 points are tied for 2 of 3 places" in line
        assert name in line
    assert "30 points are tied for 3 of 3 places" in words(probs, "bald")[0]
    assert "10 points are tied for 2 of 32 places" in words(probs, "bald", batch_size=32)[0]
    # All thirty find a place: nothing was left to chance.
    assert words(probs, "margin", batch_size=32, exclude=[0]) == ()


def test_scores_of_ones_own_are_tied_where_they_are_equal():
    def acquisition(scores: Any) -> bb.Acquisition:
        def select(key, inputs, *, batch_size, available, pending):
            return select_top(scores, batch_size=batch_size, available=available)

        return bb.Acquisition("own", ("log_probs",), select)

    small = jnp.linspace(1e-9, 2e-9, N)
    assert words(GOOD, acquisition(small)) == ()
    assert "38 points are tied" in words(GOOD, acquisition(small.at[2:].set(2e-9)))[0]


def test_samples_that_are_few_models_are_soon_exhausted():
    """Two models, each of them twice: one label tells which, and log 4 nats are never reached."""
    probs = np.tile(np.eye(C)[[0, 1, 0, 1]], (N, 1, 1))
    probs[::2] = probs[::2, ::-1]
    (line,) = words(probs, "batchbald")
    assert line.startswith("After 1 of 3 points no label tells anything more")
    # Nothing comes after the last useful point, or there was nothing else.
    assert warnings._nothing_more([0.7, 0.1], num_left=1) is None
    assert warnings._nothing_more([0.7, 1e-5], num_left=0) is None
