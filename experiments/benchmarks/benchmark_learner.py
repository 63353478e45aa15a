"""The learner beside PyTorch: sampling and training the network of the BatchBALD paper, on MNIST.

    python -m venv FOLDER && FOLDER/bin/pip install torch==2.13.0 numpy
    python -m experiments.benchmarks.benchmark_learner --torch-python FOLDER/bin/python

(On Linux the default build of torch brings CUDA along; give pip the index of CPU builds where that
is not wanted.) Writes `results/learner/speed.md`. First it checks that both sides compute the same
function. Then both are timed, in turn, each time in a new process: consistent MC dropout with 2
threads, the PyTorch side (`torch_learner.py`) as the paper's code does it, in chunks of several
sizes; and steps of training on one core. Last, all 60,000 images are sampled once.

Linux only. About 8 minutes on 2 quiet cores, most of it for PyTorch. Other work on
the machine disturbs the ratios, so the report says how much there was. To try the script:
`--num-images 4 --num-full 64 --num-steps 2 --rounds 1 --repeats 1 --output /tmp/out`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

import bbald_jax as bb
from bbald_jax.experiment.datasets import load_mnist
from bbald_jax.pool import Labelled
from experiments.common import reporting

OUTPUT = Path(__file__).parents[1] / "results" / "learner"
TORCH_SCRIPT = Path(__file__).with_name("torch_learner.py")
NUM_SAMPLES, NUM_POOL = 100, 60_000
NUM_CHECKED, TOLERANCE = 8, 1e-3
CHUNK_SIZES = (1, 4, 16, 64)
GENERIC, FACTORED = "bbald_jax, generic", "bbald_jax, factored"
# Times faster than PyTorch; seconds for all of MNIST.
SAMPLING_TARGET, POOL_TARGET, TRAINING_TARGET = 30, 40, 1


# The measurements, each in a process of its own; those of PyTorch are in `torch_learner.py`.


def write_case(path: str, num_images: int) -> dict:
    """Write images and labels, and what `torch_learner.check` needs: parameters, masks, results."""
    data = load_mnist()
    x, y = data.x_train[:num_images], data.y_train[:num_images]
    model, module = _model(), bb.PaperCNN(10)
    params = model.init(jax.random.key(0), jnp.asarray(x[:1]))
    # The biases are zero at first: make them count.
    params = jax.tree.map(lambda leaf: leaf if leaf.any() else leaf + 0.1, params)
    key, checked = jax.random.key(1), jnp.asarray(x[:NUM_CHECKED])
    # As in `bb.sample_mc_dropout`.
    masks = jax.vmap(lambda k: module.apply(params, method="masks", rngs={"dropout": k}))(
        jax.random.split(key, NUM_SAMPLES)
    )
    log_probs, of_generic = (
        bb.sample_mc_dropout(key, which, params, checked, num_samples=NUM_SAMPLES)
        for which in (model, _model(is_factored=False))
    )
    arrays = {
        **flatten_dict(params["params"], sep="."),
        **{f"mask_{i}": mask for i, mask in enumerate(masks, start=1)},
        "logits": model.apply(params, checked),
        "log_probs": log_probs,
        "x": x,
        "y": y,
    }
    np.savez(path, allow_pickle=False, **jax.tree.map(np.asarray, arrays))
    return {
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "paths": float(jnp.abs(log_probs - of_generic).max()),
    }


def sample(path: str, num_repeats: int) -> dict:
    """Milliseconds an image, generic and factored: the median of some calls after compilation."""
    x = jnp.asarray(np.load(path)["x"])
    milliseconds = []
    for is_factored in (False, True):
        call, _ = _compiled_sampler(x, is_factored=is_factored)
        call()
        milliseconds.append(1000 * _median_seconds(call, num_repeats) / len(x))
    return {"milliseconds": milliseconds}


def sample_all(num_images: int) -> dict:
    """Seconds for one call with many images, and for its compilation."""
    call, compile_seconds = _compiled_sampler(
        jnp.asarray(load_mnist().x_train[:num_images]), is_factored=True
    )
    return {"seconds": _median_seconds(call, 1), "compile": compile_seconds}


def train(path: str, num_steps: int, num_repeats: int) -> dict:
    """Milliseconds a step on one core: the median of some fits after compilation."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["NPROC"] = "1"  # read by JAX at its first computation
    recipe = bb.PAPER._replace(max_epochs=1, steps_per_epoch=num_steps)
    learner = bb.mc_dropout_learner(_model(), recipe)
    case = np.load(path)
    x, y = jnp.asarray(case["x"]), jnp.asarray(case["y"])
    labelled = Labelled(x, y, jnp.int32(len(y)))
    no_validation = Labelled(x[:0], y[:0], jnp.int32(0))
    key = jax.random.key(0)
    params = learner.init(key, x)

    def fit() -> object:
        return learner.fit(key, params, labelled, no_validation)

    jax.block_until_ready(fit())
    return {"milliseconds": 1000 * _median_seconds(fit, num_repeats) / num_steps}


def _model(*, is_factored: bool = True) -> bb.Model:
    model = bb.flax_model(bb.PaperCNN(10))
    return model if is_factored else model._replace(draw=None)


def _compiled_sampler(x: jax.Array, *, is_factored: bool) -> tuple[Callable[[], object], float]:
    """`bb.sample_mc_dropout` for images, compiled, and the seconds that this took."""
    model = _model(is_factored=is_factored)
    key = jax.random.key(0)
    params = model.init(key, x[:1])

    @jax.jit
    def log_probs(key, params, x):
        return bb.sample_mc_dropout(key, model, params, x, num_samples=NUM_SAMPLES)

    start = time.perf_counter()
    compiled = log_probs.lower(key, params, x).compile()
    return lambda: compiled(key, params, x), time.perf_counter() - start


def _median_seconds(call: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# The run, which asks for them, and its report.


class Run:
    """Asks for measurements, and keeps all answers."""

    def __init__(self, torch_python: Path):
        self.torch_python = torch_python
        self.answers: list[dict] = []

    def ours(self, what: str, **arguments) -> dict:
        """The answer of a function of this file."""
        return self._keep(what, reporting.measure(Path(__file__), what, **arguments))

    def torch(self, what: str, **arguments) -> dict:
        """The answer of a function of `torch_learner.py`."""
        answer = reporting.measure(TORCH_SCRIPT, what, python=self.torch_python, **arguments)
        return self._keep(f"torch, {what}", answer)

    def _keep(self, what: str, answer: dict) -> dict:
        if "error" in answer:
            raise SystemExit(f"{what}: {answer['error']}")
        reporting.progress(f"{what} (others: {answer['others_load']:.2f} cores)")
        self.answers.append(answer)
        return answer


def check(run: Run, path: str, num_images: int) -> dict:
    """Write the case, and stop unless the networks of both sides are one function."""
    ours = run.ours("write_case", path=path, num_images=num_images)
    torch = run.torch("check", path=path)
    if ours["num_parameters"] != torch["num_parameters"]:
        raise SystemExit(f"parameters: {ours['num_parameters']} and {torch['num_parameters']}")
    differences = {
        "logits": torch["logits"],
        "log_probs": torch["log_probs"],
        "log_probs, generic and factored": ours["paths"],
    }
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise SystemExit(f"not the same function: {what} differ by {difference:.1e}")
    return {**torch, "log_probs": max(torch["log_probs"], ours["paths"])}


def measure_rounds(
    run: Run, path: str, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds in every round, by what is measured: an image sampled, a step trained."""
    torch_names = [f"torch, chunks of {size}" for size in args.chunk_sizes]
    sampling = {name: [] for name in (*torch_names, GENERIC, FACTORED)}
    training = {"torch": [], "bbald_jax": []}
    repeats = {"num_repeats": args.repeats}
    steps = {"num_steps": args.num_steps, **repeats}
    for _ in range(args.rounds):
        torch = run.torch(
            "sample", path=path, num_samples=NUM_SAMPLES, chunk_sizes=args.chunk_sizes, **repeats
        )
        ours = run.ours("sample", path=path, **repeats)
        milliseconds = torch["milliseconds"] + ours["milliseconds"]
        for of_name, value in zip(sampling.values(), milliseconds, strict=True):
            of_name.append(value)
        torch = run.torch("train", path=path, batch_size=bb.PAPER.batch_size, **steps)
        training["torch"].append(torch["milliseconds"])
        training["bbald_jax"].append(run.ours("train", path=path, **steps)["milliseconds"])
    return sampling, training


def best_torch(milliseconds: dict[str, list[float]]) -> list[float]:
    """The milliseconds, in every round, of the fastest way of PyTorch."""
    return min((x for name, x in milliseconds.items() if name.startswith("torch")), key=min)


def rows(milliseconds: dict[str, list[float]]) -> Iterator[tuple[str, float, float, str]]:
    """Name, least milliseconds, how many times faster than PyTorch, and the same by round."""
    best = best_torch(milliseconds)
    for name, of_name in milliseconds.items():
        ratios = [theirs / own for theirs, own in zip(best, of_name, strict=True)]
        spread = f"{min(ratios):.3g} to {max(ratios):.3g}"
        yield name, min(of_name), min(best) / min(of_name), spread


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the learner beside PyTorch.")
    parser.add_argument("--torch-python", type=Path, required=True)
    parser.add_argument("--num-images", type=int, default=256, help="sampled in a timed pass")
    parser.add_argument("--num-full", type=int, default=NUM_POOL, help="sampled in one call, once")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=CHUNK_SIZES)
    parser.add_argument("--num-steps", type=int, default=bb.PAPER.steps_per_epoch)
    parser.add_argument("--repeats", type=int, default=3, help="timed passes in a process")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each side")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    run = Run(args.torch_python)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "case.npz"))
        checked = check(run, path, args.num_images)
        sampling, training = measure_rounds(run, path, args)
    full = run.ours("sample_all", num_images=args.num_full)

    best = min(best_torch(sampling))
    full_milliseconds = 1000 * full["seconds"] / args.num_full
    one_call = (
        f"{FACTORED}, {args.num_full:,} in one call",
        full_milliseconds,
        best / full_milliseconds,
    )
    sampling_rows = [
        (name, value, NUM_POOL * value / 1000, *ratios)
        for name, value, *ratios in (*rows(sampling), one_call)
    ]
    trained = min(training["torch"]) / min(training["bbald_jax"])
    targets = [
        [
            "sampling, factored: times faster than torch's best",
            f"≥ {SAMPLING_TARGET}",
            best / min(sampling[FACTORED]),
            reporting.verdict(best / min(sampling[FACTORED]), at_least=SAMPLING_TARGET),
        ],
        [
            f"sampling {args.num_full:,} images: seconds",
            f"≤ {POOL_TARGET}",
            full["seconds"],
            reporting.verdict(full["seconds"], at_most=POOL_TARGET),
        ],
        [
            "training: times faster than torch",
            f"≥ {TRAINING_TARGET}",
            trained,
            reporting.verdict(trained, at_least=TRAINING_TARGET),
        ],
    ]
    reporting.write(
        args.output / "speed.md",
        "# The learner beside PyTorch",
        "Command: `python -m experiments.benchmarks.benchmark_learner --torch-python PYTHON "
        f"--rounds {args.rounds}`.",
        reporting.machine("bbald_jax", "jax", "flax", "optax", "numpy")
        + f" The other side: torch {checked['version']}, eager.",
        "The network of the BatchBALD paper, MNIST. Both sides are one function: "
        f"{checked['num_parameters']:,} parameters; with the same parameters and masks, logits of "
        f"the deterministic network differ by at most {checked['logits']:.0e}, log-probabilities "
        f"of the K samples by {checked['log_probs']:.0e} (torch, generic, factored).",
        f"Milliseconds: the median of {args.repeats} passes in a process, the least of "
        f"{args.rounds} processes; compilation left out; the processes of both sides took turns. "
        "Ratio: torch's milliseconds (its best) over those of the row; by round: the least and the "
        f"greatest, both sides of one round. {reporting.quietness(run.answers)}",
        "## Sampling",
        f"Log-probabilities by consistent MC dropout, K = {NUM_SAMPLES}, of {args.num_images:,} "
        f"images, in chunks of so many, and {NUM_POOL:,} images by extrapolation. The last row is "
        f"one call, made once: {full['seconds']:.1f} s for {args.num_full:,} images, after "
        f"{full['compile']:.1f} s of compilation.",
        reporting.table(
            ["", "ms an image", f"s for {NUM_POOL:,}", "ratio", "by round"], sampling_rows
        ),
        "## Training",
        f"One step, on one core with one thread: {bb.PAPER.batch_size} images drawn, forward, "
        f"backward, Adam; {args.num_steps} steps a pass.",
        reporting.table(["", "ms a step", "ratio", "by round"], rows(training)),
        "## Targets",
        reporting.table(["what", "target", "result", "verdict"], targets),
    )


if __name__ == "__main__" and not reporting.is_measuring(write_case, sample, sample_all, train):
    main()
