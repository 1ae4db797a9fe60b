"""Functions under test as they run: compiled, each once."""

import functools
from collections.abc import Callable

import jax

# For `compiler_options` of a program that runs longer than it takes to compile: most do
# not, so `tests/conftest.py` has XLA optimise nothing.
RUNS_LONG = {
    "xla_backend_optimization_level": 1,
    "xla_llvm_disable_expensive_passes": False,
}


def compiled(function: Callable, **options) -> Callable:
    """`jax.jit(function, **options)` with results in NumPy.

    Each operation on an array of JAX outside of a compiled function is a program of its
    own, which takes longer to compile than most tests to run. NumPy costs nothing.
    """
    run = jax.jit(function, **options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        return jax.device_get(run(*args, **kwargs))

    return call
