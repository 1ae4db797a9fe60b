"""Normalisation layers with the epsilon of PyTorch (1e-5)."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, DTypeLike, Float, Float32

_EPSILON = 1e-5  # Flax's own layers have 1e-6


class LayerNorm(nn.Module):
    """Layer normalisation over the channels; statistics are float32.

    The variance takes two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + _EPSILON)
        ones = (1,) * (x.ndim - 1)
        y = y * scale.reshape(*ones, -1) + bias.reshape(*ones, -1)
        return y.astype(self.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by four stored vectors: (x - mean) / std * scale + bias.

    The vectors live in the collection 'constants', beside 'params': no optimiser sees
    them, no step updates them, and no gradient flows into them. Source: detectron2,
    `FrozenBatchNorm2d`.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        shape = (x.shape[-1],)

        def constant(name: str, init: Callable[..., Array]) -> Float32[Array, "C"]:
            value = self.variable("constants", name, init, shape, jnp.float32).value
            return jax.lax.stop_gradient(value)

        scale, bias = constant("scale", jnp.ones), constant("bias", jnp.zeros)
        mean, var = constant("mean", jnp.zeros), constant("var", jnp.ones)
        return _by_constants(x.astype(self.dtype), scale, bias, mean=mean, var=var)


class FrozenStatistics(nn.Module):
    """As `FrozenBatchNorm`, but scale and bias are parameters, which a run may train.

    Source: `norm_eval` of mmdetection's ResNet.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("constants", "mean", jnp.zeros, shape, jnp.float32).value
        var = self.variable("constants", "var", jnp.ones, shape, jnp.float32).value
        mean, var = jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)
        return _by_constants(x.astype(self.dtype), scale, bias, mean=mean, var=var)


def _by_constants(
    x: Float[Array, "*lead C"],
    scale: Float32[Array, "C"],
    bias: Float32[Array, "C"],
    *,
    mean: Float32[Array, "C"],
    var: Float32[Array, "C"],
) -> Float[Array, "*lead C"]:
    """(x - mean) / std * scale + bias in the dtype of `x`."""
    # Folded in float32: one multiply and one add per element remain.
    scale = scale * jax.lax.rsqrt(var + _EPSILON)
    bias = bias - mean * scale
    ones = (1,) * (x.ndim - 1)
    scale, bias = (v.reshape(*ones, -1).astype(x.dtype) for v in (scale, bias))
    return x * scale + bias


class GroupNorm(nn.Module):
    """Group normalisation; 32 groups, or the most of 16, 8, .. that divide.

    Statistics are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N *axes C"]) -> Float[Array, "N *axes C"]:
        channels = x.shape[-1]
        groups = math.gcd(32, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        y = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, channels // groups)
        y = y - y.mean(axis=(1, 3), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=(1, 3), keepdims=True) + _EPSILON)
        y = y.reshape(x.shape[0], -1, channels)
        y = y * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1)
        return y.reshape(x.shape).astype(self.dtype)
