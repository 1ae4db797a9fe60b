"""Learned upscaling of a map of tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import torch_uniform
from vis_jax.layers.norm import LayerNorm
from vis_jax.typing import Array, DTypeLike, Float, Float32

_EPSILON = 1e-6  # of the norm


class Upscale(nn.Module):
    """Twice the size: transposed convolution, GELU, depthwise convolution, norm.

    Kerssies et al., "Your ViT is secretly an image segmentation model", CVPR 2025: the
    block that EoMT has once for each doubling.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N h w C"]) -> Float32[Array, "N 2*h 2*w C"]:
        count, height, width, dim = x.shape
        # PyTorch takes the fan of a transposed convolution from its second axis.
        init = torch_uniform(4 * dim)
        kernel = self.param("enlarge_kernel", init, (dim, 2, 2, dim), jnp.float32)
        bias = self.param("enlarge_bias", init, (dim,), jnp.float32)
        # Windows do not overlap: each cell becomes 2 x 2 by a matrix product.
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        y = jnp.einsum("nhwc,cabd->nhawbd", x, kernel)
        y = y.reshape(count, 2 * height, 2 * width, dim)
        y = y + bias.astype(self.dtype).reshape(1, 1, 1, dim)
        y = nn.gelu(y, approximate=False)
        shape = (3, 3, 1, dim)
        smooth = self.param("smooth_kernel", torch_uniform(9), shape, jnp.float32)
        y = depthwise(y, smooth.astype(self.dtype))
        return LayerNorm(jnp.float32, _EPSILON, name="norm")(y)


def depthwise(
    x: Float[Array, "N h w C"], kernel: Float[Array, "k k 1 C"]
) -> Float[Array, "N h w C"]:
    """Convolution of every channel by itself, zero outside the map.

    A sum of shifted maps: devices fuse it, and CPUs are slow at grouped convolutions.
    """
    side = kernel.shape[0]
    height, width = x.shape[1:3]
    border = (side // 2, side // 2)
    padded = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    total = jnp.zeros_like(x)
    for row in range(side):
        for column in range(side):
            part = jax.lax.slice_in_dim(padded, row, row + height, axis=1)
            part = jax.lax.slice_in_dim(part, column, column + width, axis=2)
            total += part * kernel[row, column].reshape(1, 1, 1, -1)
    return total
