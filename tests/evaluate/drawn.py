"""Draws variables for models that need no training."""

import jax
import numpy as np

from tests.systems.contract import first_batch
from vis_jax.commands.run_settings import RunSettings
from vis_jax.systems.system import System


def drawn_variables(system: System, config: RunSettings, seed: int) -> dict:
    """Draws random variables without compiling the system's `init`."""
    shapes = jax.eval_shape(system.init, jax.random.key(0), first_batch(config))
    return draw(dict(shapes), seed)


def draw(shapes: dict, seed: int, *, norms: float = 1.0) -> dict:
    """Draws small values for shapes.

    Args:
      shapes: shapes of variables.
      seed: seed of the noise.
      norms: weight of the noise around 1 that scales and variances of norms have.
    """
    rng = np.random.default_rng(seed)

    def one(path, x):
        length = x.shape[-1] if x.shape else 1
        noise = rng.normal(size=x.shape) / np.sqrt(max(x.size / length, 4))
        if path[-1].key in ("scale", "var"):
            noise = 1 + norms * noise
        return np.asarray(noise, np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)
