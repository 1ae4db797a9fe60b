"""Convolution with optional normalisation and explicit symmetric padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.norm import (
    BatchNorm,
    FrozenBatchNorm,
    FrozenStatistics,
    GroupNorm,
)
from vis_jax.ops.conv import convolve
from vis_jax.typing import Array, Bool, DTypeLike, Float

NORMS = {
    "frozen_batch": FrozenBatchNorm,
    "frozen_stats": FrozenStatistics,
    "batch": BatchNorm,
    "group": GroupNorm,
}

# He et al. 2015, fan-out: the initialisation of ResNets ("MSRA").
MSRA = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution with optional bias and normalisation.

    Attributes:
      features: output channels.
      kernel: side of the square kernel; padding is kernel // 2 on all four sides, as in
        PyTorch ("SAME" pads strided maps on one side only).
      norm: a key of NORMS, or None.
      groups: number of convolution groups.
    """

    features: int
    kernel: int
    stride: int = 1
    norm: str | None = None
    use_bias: bool = False
    groups: int = 1
    kernel_init: jax.nn.initializers.Initializer = MSRA
    bias_init: jax.nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        valid: Bool[Array, "N"] | None = None,
    ) -> Float[Array, "N h w D"]:
        """Convolves images; `train` and `valid` only affect `BatchNorm`."""
        width = x.shape[-1] // self.groups
        shape = (self.kernel, self.kernel, width, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)  # also accepts NumPy arrays
        x = _convolve(x.astype(self.dtype), kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        if self.norm is not None:
            x = normalised(x, self.norm, train, valid)
        return x


def normalised(
    x: Float[Array, "N H W C"],
    norm: str,
    train: bool,
    valid: Bool[Array, "N"] | None,
) -> Float[Array, "N H W C"]:
    """Applies the layer 'norm' of the calling module.

    Args:
      norm: a key of NORMS.
      train, valid: see `BatchNorm`.
    """
    layer = NORMS[norm](dtype=x.dtype, name="norm")
    return layer(x, train, valid) if norm == "batch" else layer(x)


def _convolve(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "k k c D"],
    stride: int,
) -> Float[Array, "N h w D"]:
    if kernel.shape[:2] == (1, 1) and kernel.shape[2] == x.shape[-1]:
        # A matrix product; on CPUs its gradient is twice as fast as a convolution's.
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return convolve(x, kernel, stride)
