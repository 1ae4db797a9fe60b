"""Attention to a window of another map, with learned relative position terms.

Yang et al., "Associating Objects with Transformers for Video Object Segmentation",
NeurIPS 2021, the short-term attention of the code. Letters: d channels per head, P
positions in the window.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import torch_uniform
from vis_jax.ops.local_attention import local_attention
from vis_jax.typing import Array, DTypeLike, Float, PRNGKeyArray


class LocalAttention(nn.Module):
    """Windowed attention on projected queries and keys; see `ops.local_attention`.

    Attributes:
      dim, heads: channels, and the heads that share them.
      radius: radius of the window, whose side is 2 * radius + 1.
    """

    dim: int
    heads: int
    radius: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B h w C"],
        keys: Float[Array, "B h w C"],
        values: Float[Array, "B h w C"],
    ) -> Float[Array, "B h w C"]:
        """Attends from each position of the query map to the window around it."""
        places, dim = (2 * self.radius + 1) ** 2, self.dim // self.heads
        shape = self.heads, places, dim
        kernel = self.param("relative_kernel", _relative_init, shape)
        bias = self.param("relative_bias", torch_uniform(dim), shape[:2])
        value_bias = self.param("value_bias", _value_init, (self.heads, dim, places))
        # Also accepts NumPy arrays.
        kernel, bias, value_bias = (
            jnp.asarray(x, self.dtype) for x in (kernel, bias, value_bias)
        )
        queries, keys, values = (
            x.reshape(*x.shape[:3], self.heads, dim) for x in (queries, keys, values)
        )
        # From unscaled queries.
        relative = jnp.einsum("byxhd,hpd->byxhp", queries, kernel)
        relative += bias[None, None, None]

        def of_map(
            queries: Float[Array, "h w heads d"],
            keys: Float[Array, "h w heads d"],
            values: Float[Array, "h w heads d"],
            relative: Float[Array, "h w heads P"],
        ) -> Float[Array, "h w heads d"]:
            terms = dict(relative=relative, value_bias=value_bias)
            return local_attention(queries, keys, values, **terms)

        found = jax.vmap(of_map)(queries, keys, values, relative)
        return nn.Dense(
            self.dim,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=torch_uniform(self.dim),
            name="out",
        )(found.reshape(*found.shape[:3], self.dim))


def _relative_init(
    key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "heads P d"]:
    """Xavier uniform for a grouped convolution: d inputs, heads * P outputs."""
    heads, places, dim = shape
    bound = math.sqrt(6.0 / (dim + heads * places))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _value_init(
    key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "heads d P"]:
    """Xavier uniform, with PyTorch's fans for the shape [1, heads, d, P, 1]."""
    heads, dim, places = shape
    bound = math.sqrt(6.0 / ((heads + 1) * dim * places))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
