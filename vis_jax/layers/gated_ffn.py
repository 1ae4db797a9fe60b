"""A feed-forward block with spatial context on the token map.

Yang et al., "Associating Objects with Transformers for Video Object Segmentation",
NeurIPS 2021, with the channel gate that IAI adds.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import gelu, torch_uniform
from vis_jax.layers.norm import GroupNorm
from vis_jax.ops.depthwise import depthwise
from vis_jax.typing import Array, DTypeLike, Float, PRNGKeyArray

_EPSILON = 1e-5
_XAVIER = nn.initializers.xavier_uniform()


class ChannelGate(nn.Module):
    """Gates channels by their strength on the whole map, so they compete or cooperate.

    Yang et al., "Gated channel transformation for visual recognition", CVPR 2020, with
    the l2 norm. Strengths are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        channels = x.shape[-1]
        # Deviation from the gate's source, as in IAI's code: not initialised to
        # identity.
        alpha, gamma, beta = (
            self.param(name, _gate_init, (channels,), jnp.float32)
            for name in ("alpha", "gamma", "beta")
        )
        power = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2))
        strength = alpha[None] * jnp.sqrt(power + _EPSILON)
        mean = jnp.square(strength).mean(axis=-1, keepdims=True)
        share = strength * gamma[None] * jax.lax.rsqrt(mean + _EPSILON)
        gate = 1.0 + jnp.tanh(share + beta[None])
        return x * gate[:, None, None].astype(x.dtype)


def _gate_init(
    key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "C"]:
    """Xavier uniform, with PyTorch's fans for the shape [1, C, 1, 1]."""
    bound = math.sqrt(6.0 / (shape[0] + 1))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class DepthwiseConv(nn.Module):
    """Depth-wise convolution without bias; zero padding."""

    kernel: int  # side, odd
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        # Shaped as for a grouped convolution, for Xavier's fans.
        shape = (self.kernel, self.kernel, 1, x.shape[-1])
        kernel = self.param("kernel", _XAVIER, shape, jnp.float32)
        return depthwise(x.astype(self.dtype), jnp.asarray(kernel, self.dtype))


class GatedFeedForward(nn.Module):
    """Linear, group norm, exact GELU, channel gate, depth-wise convolution, linear.

    Attributes:
      hidden: hidden channels.
      kernel: side of the convolution.
    """

    hidden: int
    kernel: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        dim = x.shape[-1]

        def linear(features: int, fan_in: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                dtype=self.dtype,
                kernel_init=_XAVIER,
                bias_init=torch_uniform(fan_in),
                name=name,
            )

        x = linear(self.hidden, dim, "linear1")(x)
        x = GroupNorm(dtype=self.dtype, name="norm")(x)
        x = ChannelGate(dtype=self.dtype, name="gate")(gelu(x))
        x = DepthwiseConv(self.kernel, dtype=self.dtype, name="conv")(x)
        return linear(dim, self.hidden, "linear2")(x)
