"""Sets up all tests: on the CPU, types checked, strict rank and dtype promotion."""

import contextlib
import gc
import os
import sys

from tests import kept_programs

# Cache Python bytecode even if the environment disables it, as container images do:
# compiling it in every process takes ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Set before JAX is imported; subprocesses of tests inherit it.
_FLAGS = (
    # Programs are small and run once or twice, so compilation takes most of the time.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",  # halves the time of a training step
    "--xla_cpu_parallel_codegen_split_count=1",  # a tenth less processor time
    # Small programs do not benefit from threads, which would slow the other workers.
    "--xla_cpu_multi_thread_eigen=false",
)
os.environ["XLA_FLAGS"] = f"{' '.join(_FLAGS)} {os.environ.get('XLA_FLAGS', '')}"
os.environ["NPROC"] = "1"  # the size of XLA's thread pool
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiled programs are cached across runs; `make clean` deletes them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(kept_programs.FOLDER))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
# Programs without the source lines of their operations compile a little faster.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jaxtyping  # noqa: E402

# Check every call in these packages against its signature, shapes included. Pytest's
# option takes only one package together with a checker that has arguments.
_INT_IS_FLOAT = "beartype.BeartypeConf(is_pep484_tower=True)"
jaxtyping.install_import_hook(
    ["vis_jax", "data_pipeline", "configs"], f"beartype.beartype(conf={_INT_IS_FLOAT})"
)

import jax  # noqa: E402
import pytest  # noqa: E402

from tests import fast_keys, processor_time  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Optax mixes dtypes in its updates, so training tests cannot be strict.
_TRAINING = ("training", "commands", "test_docs", "test_main", "test_end_to_end")
# Tests that compile much and do not compare with another process.
_FAST_KEYS = (
    "association", "detectors", "losses", "systems", "test_debug_recipes",
    "test_fast_keys", "test_gated_ffn", "test_statistics_resumed",
)  # fmt: skip


@pytest.fixture
def types_unchecked():
    """Disables signature checks, to test errors as users see them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_addoption(parser):
    written = processor_time.LIST.name
    parser.addoption("--write-slow", action="store_true", help=f"writes {written}")


def pytest_configure(config):
    config.pluginmanager.register(processor_time)
    if not hasattr(config, "workerinput"):  # once, not in each worker
        kept_programs.limit(kept_programs.FOLDER)


def pytest_collection_finish():
    """Tunes garbage collection: tracing makes many live objects, so it costs 10 %."""
    gc.freeze()  # all modules
    gc.set_threshold(100_000, 10, 10)


def _is_among(request, names):
    """Whether a test is in a file or folder of these names."""
    parts = request.path.with_suffix("").relative_to(request.config.rootpath).parts
    return any(part in names for part in parts)


@pytest.fixture(scope="module", autouse=True)
def dtype_promotion(request):
    """Sets standard dtype promotion for training tests, strict for all others."""
    trains = _is_among(request, _TRAINING)
    with jax.numpy_dtype_promotion("standard" if trains else "strict"):
        yield


@pytest.fixture(scope="module", autouse=True)
def random_keys(request):
    """Sets the type of random keys."""
    among = _is_among(request, _FAST_KEYS)
    with fast_keys.used() if among else contextlib.nullcontext():
        yield
