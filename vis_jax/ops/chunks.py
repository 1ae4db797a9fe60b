"""Maps a function over frames in chunks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vis_jax.typing import Array


def map_chunks(function: Callable, frames: Any, chunk: int) -> Any:
    """Applies `function` to chunks of frames to bound memory."""
    count = jax.tree.leaves(frames)[0].shape[0]  # may be symbolic
    if count <= chunk:
        return function(frames)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, ((0, -count % chunk), *[(0, 0)] * (x.ndim - 1)))
        return padded.reshape(-1, chunk, *x.shape[1:])

    out = jax.lax.map(function, jax.tree.map(split, frames))
    return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2)[:count], out)
