"""Layers that predict sampling locations."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.deform_attn import deform_attn
from vis_jax.typing import Array, DTypeLike, Float, Float32, PRNGKeyArray

_XAVIER = nn.initializers.xavier_uniform()


class MSDeformAttention(nn.Module):
    """Multi-scale deformable attention; Deformable DETR, Eq. 3 and section A.3.

    Offsets are in pixels of the sampled level. Locations, weights and samples are
    float32.
    """

    dim: int
    heads: int
    levels: int
    points: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "N Q C"],
        tokens: Float[Array, "N S C"],
        references: Float32[Array, "Q 2"],
        *,
        shapes: tuple[tuple[int, int], ...],
    ) -> Float[Array, "N Q C"]:
        """Samples the tokens around each query's reference point.

        Args:
          queries: with position embeddings added.
          tokens: tokens of all levels, concatenated, each row by row.
          references: x, y in [0, 1], the same for all levels.
          shapes: height and width of each level in pixels.
        """
        if self.dim % self.heads:
            raise ValueError(
                f"dim: expected a multiple of {self.heads} heads, got {self.dim}"
            )
        n, q = queries.shape[:2]
        split = (n, q, self.heads, self.levels, self.points)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_XAVIER)
        value = dense(self.dim, name="value_proj")(tokens)
        offsets = self._linear(math.prod(split[2:]) * 2, "sampling_offsets")(queries)
        logits = self._linear(math.prod(split[2:]), "attention_weights")(queries)
        weights = jax.nn.softmax(logits.reshape(n, q, self.heads, -1)).reshape(split)
        extents = jnp.asarray([(w, h) for h, w in shapes], jnp.float32)
        offsets = offsets.reshape(*split, 2) / extents.reshape(1, 1, 1, -1, 1, 2)
        locations = references.reshape(1, q, 1, 1, 1, 2) + offsets
        value = value.reshape(n, -1, self.heads, self.dim // self.heads)
        read = jax.vmap(lambda v, x, w: deform_attn(v, x, w, shapes=shapes))
        output = read(value, locations, weights).reshape(n, q, self.dim)
        return dense(self.dim, name="output_proj")(output)

    def _linear(self, features: int, name: str) -> nn.Dense:
        bias = nn.initializers.zeros
        if name == "sampling_offsets":
            bias = _direction_bias(self.heads, self.levels, self.points)
        zeros = nn.initializers.zeros
        return nn.Dense(
            features, name=name, dtype=jnp.float32, kernel_init=zeros, bias_init=bias
        )


def _direction_bias(heads: int, levels: int, points: int) -> Callable[..., Array]:
    """Points head k along angle 2 pi k / heads, point p at p + 1 pixels (max norm)."""
    angle = np.arange(heads) * (2 * math.pi / heads)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    steps = np.arange(1, points + 1)[None, None, :, None]
    bias = np.broadcast_to(
        direction[:, None, None] * steps, (heads, levels, points, 2)
    ).reshape(-1)

    def init(
        key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "..."]:
        del key
        return jnp.asarray(bias, dtype).reshape(shape)

    return init


def centre_tap(
    key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "k k C C"]:
    """Initialises a convolution kernel to the identity."""
    del key
    middle = shape[0] // 2
    eye = jnp.eye(shape[-1], dtype=dtype)
    return jnp.zeros(tuple(shape), dtype).at[middle, middle].set(eye)
