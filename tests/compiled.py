"""Compiles functions under test, each once, as in production."""

import functools
from collections.abc import Callable

import jax

# `compiler_options` for a program that runs longer than it compiles; most do not, so
# `tests/conftest.py` disables XLA's optimisations.
RUNS_LONG = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": False,
}


def compiled(function: Callable, **options) -> Callable:
    """Returns `jax.jit(function, **options)` with results as NumPy arrays.

    Outside compiled functions, each operation on a JAX array is a separate program,
    which takes longer to compile than most tests to run; NumPy operations do not.
    """
    run = jax.jit(function, **options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return jax.device_get(run(*args, **kwargs))

    return call
