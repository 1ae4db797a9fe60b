"""Values for a model whose training does not matter."""

import jax
import numpy as np

from tests.systems.contract import first_batch
from vis_jax.commands.run_settings import RunSettings
from vis_jax.systems.system import System


def drawn_variables(system: System, config: RunSettings, seed: int) -> dict:
    """Random variables, without compiling what draws the system's own."""
    shapes = jax.eval_shape(system.init, jax.random.key(0), first_batch(config))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        ones = np.float32(path[-1].key in ("scale", "var"))
        noise = rng.normal(size=x.shape) / np.sqrt(max(x.size / x.shape[-1], 4))
        return (ones + noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, dict(shapes))
