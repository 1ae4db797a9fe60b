"""Draws variables for models that need no training."""

import jax
import numpy as np

from tests.systems.contract import first_batch
from vis_jax.commands.run_settings import RunSettings
from vis_jax.systems.system import System


def drawn_variables(system: System, config: RunSettings, seed: int) -> dict:
    """Draws random variables without compiling the system's `init`."""
    shapes = jax.eval_shape(system.init, jax.random.key(0), first_batch(config))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        ones = np.float32(path[-1].key in ("scale", "var"))
        noise = rng.normal(size=x.shape) / np.sqrt(max(x.size / x.shape[-1], 4))
        return (ones + noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, dict(shapes))
