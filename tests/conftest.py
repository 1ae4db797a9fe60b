"""How every test runs: on the CPU, types checked, no unseen broadcast or promotion."""

import atexit
import os
import shutil
import tempfile

# Programs here are small and run once or twice: compiling is what takes the time.
_QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ["XLA_FLAGS"] = f"{_QUICK_COMPILATION} {os.environ.get('XLA_FLAGS', '')}"
os.environ["JAX_PLATFORMS"] = "cpu"  # for the subprocesses of tests, too
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What takes over a second to compile is compiled once, also by subprocesses.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vis_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], True)

import jaxtyping  # noqa: E402

# Every call in these packages is checked against its signature, shapes included. Not by
# pytest's option, which takes no more than one package beside a checker with arguments.
_INT_IS_FLOAT = "beartype.BeartypeConf(is_pep484_tower=True)"
jaxtyping.install_import_hook(
    ["vis_jax", "data_pipeline", "configs"], f"beartype.beartype(conf={_INT_IS_FLOAT})"
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Optax mixes dtypes in its updates, so what trains cannot be strict.
_TRAINING = ("train", "commands", "test_main", "test_end_to_end")


@pytest.fixture
def types_unchecked():
    """Signatures are not checked, as outside the tests: for errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", autouse=True)
def dtype_promotion(request):
    """Standard promotion for the tests of training, strict for all others."""
    parts = request.path.with_suffix("").relative_to(request.config.rootpath).parts
    trains = any(part in _TRAINING for part in parts)
    with jax.numpy_dtype_promotion("standard" if trains else "strict"):
        yield
