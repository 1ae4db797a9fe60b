"""Convolution followed by a normalisation, with explicit symmetric padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.norm import (
    BatchNorm,
    FrozenBatchNorm,
    FrozenStatistics,
    GroupNorm,
)
from vis_jax.typing import Array, Bool, DTypeLike, Float

NORMS = {
    "frozen_batch": FrozenBatchNorm,
    "frozen_stats": FrozenStatistics,
    "batch": BatchNorm,
    "group": GroupNorm,
}

# He et al. 2015, by the outputs: what ResNets are trained from ("MSRA").
MSRA = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution, bias if asked for, normalisation if asked for.

    Attributes:
      features: output channels.
      kernel: side of the square kernel; the padding is kernel // 2 on all four sides,
        as PyTorch models have it ("SAME" pads strided maps on one side only).
      norm: a key of NORMS, or None.
    """

    features: int
    kernel: int
    stride: int = 1
    norm: str | None = None
    use_bias: bool = False
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
        """Maps of images; `train` and `valid` are read by `BatchNorm` alone."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)  # NumPy arrays, too
        x = _convolve(x.astype(self.dtype), kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        if self.norm is not None:
            norm = NORMS[self.norm](dtype=self.dtype, name="norm")
            x = norm(x, train, valid) if self.norm == "batch" else norm(x)
        return x


def _convolve(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    stride: int,
) -> Float[Array, "N h w D"]:
    pad = kernel.shape[0] // 2
    if pad == 0:
        # A matrix product; its gradient runs twice as fast on CPUs as a convolution's.
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
