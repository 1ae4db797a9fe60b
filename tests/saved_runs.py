"""Writes folders like those of training runs, with random parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from data_pipeline.datasets.dataset import Category
from tests.recipes import recipe
from vis_jax.commands import parts
from vis_jax.training.checkpoint import save_variables
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.run_config import write_config

NAMES = tuple(f"shape {number}" for number in range(1, 9))  # of the classes


def write_run(
    folder: Path, name: str, changes: Mapping[str, Any] | None = None, *, step: int = 4
) -> Path:
    """Writes a run of `configs/NAME.py:debug` with a checkpoint of this step."""
    run = recipe(name, "debug", changes)
    system = parts.build_system(run)
    shapes = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    save_variables(folder / "checkpoints" / str(step), variables)
    write_config(run, str(folder))
    categories = [Category(2 * i, name) for i, name in enumerate(NAMES, 1)]
    parts.write_categories(folder, categories)
    return folder
