"""Inspects the folder and the compiled programs of a training run."""

import json
import re
import shutil

import jax
from jax.experimental.compilation_cache import compilation_cache

STEPS = 4
# Programs that a run compiles, apart from casts and slices of single arrays.
PROGRAMS = ["init", "new", "step", "step", "update", "upsample", "upsample"]


def forget_programs():
    """Clears caches, so that the next command compiles or loads as in a new process."""
    jax.clear_caches()
    compilation_cache.reset_cache()


def cached_programs(workdir):
    return {path.name for path in (workdir / "compilation_cache").glob("*-cache")}


def programs(names):
    """Returns PROGRAMS among names such as "jit(update)" or "jit_update-1f..."."""
    found = [
        re.split("[-()]", name.removeprefix("jit").strip("_("))[0] for name in names
    ]
    return sorted(name for name in found if name in PROGRAMS)


def losses(workdir):
    """Returns the loss saved with each checkpoint, by step."""
    files = (workdir / "checkpoints").glob("*/metrics/metrics")
    return {int(f.parts[-3]): json.loads(f.read_text())["loss"] for f in files}


def before_the_end(workdir, tmp_path):
    """Returns a copy of the run as it was after half of the steps."""
    half = shutil.copytree(workdir, tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / str(STEPS))
    shutil.rmtree(half / "evaluation")
    return half
