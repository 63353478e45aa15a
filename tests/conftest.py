"""Type checks on, hypothesis profile, and the predictions that most tests use."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jaxtyping

# Here and in every process that a test starts: no test sees what another one compiled.
os.environ["BBALD_COMPILATION_CACHE"] = "0"

# Before anything imports the library: every annotation becomes a check, in tests only.
jaxtyping.install_import_hook("bbald_jax", "beartype.beartype")

import fuzz  # noqa: E402
import hypothesis  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxlib.version  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402
from quick import quick_compile_options  # noqa: E402

import bbald_jax.tiling  # noqa: E402
from bbald_jax.tiling import tiling  # noqa: E402

hypothesis.settings.register_profile(
    "bbald_jax",
    deadline=None,  # the first example compiles
    max_examples=25,
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("bbald_jax")


#: Whichever of these were begun last would run on while the other workers have nothing to do.
SLOWEST_FIRST = (
    "acquisition/test_batchbald.py",
    "experiment/test_survival.py",
    "acquisition/test_search.py",
    "information/test_joint.py",
    "experiment/test_trials.py",
    "acquisition/test_golden.py",
    "loop/test_loop.py",
    "learning/test_training.py",
    "information/test_configurations.py",
    "acquisition/test_functions.py",
    "test_examples.py",
    "learning/test_torch_sampling.py",
    "acquisition/test_top.py",
    "test_layout.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first, the others in their order."""

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        return SLOWEST_FIRST.index(file) if file in SLOWEST_FIRST else len(SLOWEST_FIRST)

    items.sort(key=place)


def pytest_sessionfinish(session: Any) -> None:
    """A worker of pytest-xdist hands its counts over."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzz"] = {
            name: dict(ends) for name, ends in fuzz.CASES.items()
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The counts of a worker."""
    for edge, ends in getattr(node, "workeroutput", {}).get("fuzz", {}).items():
        fuzz.CASES[edge].update(ends)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many cases the fuzz tests tried."""
    if line := fuzz.summary():
        terminalreporter.write_line(line)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_functions() -> Iterator[None]:
    """Every one holds memory maps, of which a process may have some ten thousands only."""
    yield
    jax.clear_caches()


#: Where the numbers of the engine are compared, programs are compiled as its users get them, and
#: so is all that runs in a process of its own (the command line, the notebooks). Elsewhere they
#: are large and the arrays small: XLA takes longer to compile than to run them.
COMPILED_IN_FULL = (
    "information/",
    "acquisition/test_batchbald.py",
    "acquisition/test_golden.py",
    "acquisition/test_search.py",
)


@pytest.fixture(scope="session")
def quickly_compiled() -> Callable[[], AbstractContextManager[None]]:
    """`with quickly_compiled():` what is compiled is compiled without most optimisations."""
    make_quick_options = quick_compile_options()

    @contextmanager
    def quickly() -> Iterator[None]:
        jax.config.update("jax_disable_most_optimizations", True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiler, "get_compile_options", make_quick_options)
            yield
        jax.config.update("jax_disable_most_optimizations", False)

    return quickly


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(
    request: pytest.FixtureRequest, quickly_compiled: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Where no test is about what the optimisations could change."""
    file = request.path.relative_to(Path(__file__).parent).as_posix()
    with nullcontext() if file.startswith(COMPILED_IN_FULL) else quickly_compiled():
        yield


MakeLogProbs = Callable[..., jax.Array]


@pytest.fixture(scope="session")
def make_log_probs() -> MakeLogProbs:
    """`make(N, K, C, seed=0, scale=2.0, zeros=0.0)`: random float32 predictions.

    `scale` is the spread of the logits (0 is flat, 50 is certain), `zeros` the share of classes
    that are impossible.
    """

    def make(
        num_points: int,
        num_samples: int,
        num_classes: int,
        *,
        seed: int = 0,
        scale: float = 2.0,
        zeros: float = 0.0,
    ) -> jax.Array:
        rng = np.random.default_rng(seed)
        shape = (num_points, num_samples, num_classes)
        logits = scale * rng.normal(size=shape)
        is_possible = rng.random(shape) >= zeros
        # One class of each row stays possible.
        is_possible |= np.arange(num_classes) == rng.integers(num_classes, size=(*shape[:2], 1))
        logits = np.where(is_possible, logits, -np.inf)
        log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        return jnp.asarray(log_probs, jnp.float32)

    return make


def assert_nats(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    """Equal to within the library's tolerance, in nats."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=atol)


def assert_unbiased(estimates: Any, expected: Any, sharpness: float) -> None:
    """The mean is right within four standard errors, and the error is below `sharpness`."""
    estimates = np.asarray(estimates, np.float64)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert np.all(error > 0), "nothing was estimated"
    assert np.all(error < sharpness), f"standard error {error}: the test is not sharp"
    difference = np.abs(estimates.mean(axis=0) - expected)
    assert np.all(difference < 4 * error), f"off by {(difference / error).max()} standard errors"


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """What is computed within is float64, if its input is; `jax.enable_x64` is not in jax 0.7."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


#: For tests of memory: on a CPU, XLA before wrote `exp(log_probs)` down whole, to sum it then.
fused_reductions = pytest.mark.skipif(
    jaxlib.version.__version_info__ < (0, 10, 2),
    reason="jaxlib before 0.10.2 does not fuse a reduction with what it reads",
)


def temporary_bytes(function: Callable, *arguments: Any) -> int:
    """What the compiled function needs beside its inputs and outputs; it is not run."""
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def tile_bytes() -> int:
    """One tile of each kind of work on the tree of configurations, in float32."""
    return 4 * (tiling().predictive + tiling().children)


def set_tiles(monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Other tile sizes for what is traced from now on."""
    monkeypatch.setattr(bbald_jax.tiling, "_CPU", tiling()._replace(**sizes))
