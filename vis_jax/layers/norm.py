"""Normalisation layers with the epsilon of PyTorch (1e-5)."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32

_EPSILON = 1e-5  # Flax defaults to 1e-6


class LayerNorm(nn.Module):
    """Layer normalisation over the channels; statistics are float32.

    The variance takes two passes: E[x^2] - E[x]^2 loses precision for large means.

    Attributes:
      epsilon: added to the variance.
    """

    dtype: DTypeLike = jnp.float32
    epsilon: float = _EPSILON

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return layer_norm(x, scale, bias, self.epsilon).astype(self.dtype)


def layer_norm(
    x: Float[Array, "*lead C"],
    scale: Float32[Array, "C"],
    bias: Float32[Array, "C"],
    epsilon: float = _EPSILON,
) -> Float32[Array, "*lead C"]:
    """Applies layer normalisation with the given parameters."""
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + epsilon)
    ones = (1,) * (x.ndim - 1)
    return y * scale.reshape(*ones, -1) + bias.reshape(*ones, -1)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with four constants: (x - mean) / std * scale + bias.

    The constants live in the collection 'constants', beside 'params': they get no
    gradient and no optimiser updates. Source: detectron2, `FrozenBatchNorm2d`.
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
    """Same as `FrozenBatchNorm`, but scale and bias are trainable parameters.

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


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics, like PyTorch's `BatchNorm2d`.

    Ioffe and Szegedy, "Batch normalization", ICML 2015. Training uses the mean and
    variance of the batch and updates the running ones; otherwise the running ones are
    used. For n values per batch, the running variance is updated with n / (n - 1) times
    the variance.

    The running statistics live in the collection 'batch_stats', which a training call
    must declare mutable and pass on (`LossAux.batch_stats`). For a batch sharded over
    devices, statistics are those of the whole batch: batch norm is synchronised. Under
    `vmap` each example would have its own.

    Attributes:
      momentum: weight of a batch in the running statistics, as in PyTorch.
      epsilon: added to the variance.
    """

    momentum: float = 0.1
    epsilon: float = _EPSILON
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N *axes C"],
        train: bool = False,
        valid: Bool[Array, "N *some"] | None = None,
    ) -> Float[Array, "N *axes C"]:
        """Normalises maps over images and positions.

        Args:
          x: maps of images.
          train: use batch statistics.
          valid: images (or positions, by the first axes of `x`) that count in the
            statistics. If there are none, the running statistics are used and kept.
        """
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if not train:
            kept = functools.partial(_by_constants, epsilon=self.epsilon)
            x = x.astype(self.dtype)
            return kept(x, scale, bias, mean=mean.value, var=var.value)
        y = x.astype(jnp.float32)
        found = _moments(y, jnp.ones(len(x), bool) if valid is None else valid)
        some = found.number > 0
        centre = jnp.where(some, found.mean, mean.value)
        spread = jnp.where(some, found.var, var.value)
        factor = scale * jax.lax.rsqrt(spread + self.epsilon)
        ones = (1,) * (x.ndim - 1)
        centre, factor, bias = (v.reshape(*ones, -1) for v in (centre, factor, bias))
        y = (y - centre) * factor + bias
        if not self.is_initializing():
            unbiased = found.var * found.number / jnp.maximum(found.number - 1, 1)
            share = jnp.where(some, self.momentum, 0.0)
            mean.value += share * (found.mean - mean.value)
            var.value += share * (unbiased - var.value)
        return y.astype(self.dtype)


class _Moments(NamedTuple):
    """Mean and variance of each channel."""

    mean: Float32[Array, "C"]
    var: Float32[Array, "C"]  # biased
    number: Float32[Array, ""]  # values per channel


def _moments(x: Float32[Array, "N *axes C"], valid: Bool[Array, "N *some"]) -> _Moments:
    """Computes mean and variance over the valid images in two passes; 0 without any."""
    weight = valid.astype(jnp.float32)
    weight = weight.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))
    count = weight.sum() * math.prod(x.shape[valid.ndim : -1])
    axes = tuple(range(x.ndim - 1))
    divisor = jnp.maximum(count, 1.0)
    mean = (x * weight).sum(axes) / divisor
    apart = x - mean.reshape(*[1] * (x.ndim - 1), -1)
    return _Moments(mean, (jnp.square(apart) * weight).sum(axes) / divisor, count)


def _by_constants(
    x: Float[Array, "*lead C"],
    scale: Float32[Array, "C"],
    bias: Float32[Array, "C"],
    *,
    mean: Float32[Array, "C"],
    var: Float32[Array, "C"],
    epsilon: float = _EPSILON,
) -> Float[Array, "*lead C"]:
    """Returns (x - mean) / std * scale + bias in the dtype of `x`."""
    # Folded in float32: one multiply and one add per element.
    scale = scale * jax.lax.rsqrt(var + epsilon)
    bias = bias - mean * scale
    ones = (1,) * (x.ndim - 1)
    scale, bias = (v.reshape(*ones, -1).astype(x.dtype) for v in (scale, bias))
    return x * scale + bias


class GroupNorm(nn.Module):
    """Group normalisation with 32 groups, or the largest of 16, 8, .. that divides.

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
