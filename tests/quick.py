"""XLA's quick way to compile: where arrays are small it takes longer to compile than to run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src import compiler

#: XLA's older way to make the code of a kernel, and all kernels in one piece: a fit is compiled in
#: a quarter of the time.
QUICK_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def quick_compile_options() -> Callable[..., Any]:
    """What `compiler.get_compile_options` is to be, so that programs are compiled quickly.

    As if every `jax.jit` had these `compiler_options`: JAX has no setting for that, and the
    variable XLA_FLAGS ends a process whose XLA does not know them.
    """
    options = QUICK_OPTIONS
    try:
        jax.jit(lambda x: x, compiler_options=options)(0)
    except jax.errors.JaxRuntimeError:  # an XLA that has the older way only
        options = {}
    make_options = compiler.get_compile_options

    def make_quick_options(
        *args: Any, env_options_overrides: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        overrides = options | (env_options_overrides or {})
        return make_options(*args, env_options_overrides=overrides, **kwargs)

    return make_quick_options


def run_quickly(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that compiles in this way."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    begin = (
        "import quick; from jax._src import compiler\n"
        "compiler.get_compile_options = quick.quick_compile_options()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", begin + code, *args],
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
