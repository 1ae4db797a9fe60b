"""Many frames, a few at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vis_jax.typing import Array


def map_chunks(function: Callable, frames: Any, chunk: int) -> Any:
    """`function` of arrays of frames, a few at a time, which bounds the memory."""
    count = jax.tree.leaves(frames)[0].shape[0]  # may be a symbol
    if count <= chunk:
        return function(frames)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, ((0, -count % chunk), *[(0, 0)] * (x.ndim - 1)))
        return padded.reshape(-1, chunk, *x.shape[1:])

    out = jax.lax.map(function, jax.tree.map(split, frames))
    return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2)[:count], out)
