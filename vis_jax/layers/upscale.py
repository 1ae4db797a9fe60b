"""Learned upsampling of a token map."""

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.layers.mlp import gelu, torch_uniform
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.depthwise import depthwise
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32

_EPSILON = 1e-6  # for the norm


class Upscale(nn.Module):
    """2x upsampling: transposed convolution, GELU, depthwise convolution, norm.

    Kerssies et al., "Your ViT is secretly an image segmentation model", CVPR 2025: EoMT
    has one such block per doubling.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N h w C"], inside: Bool[Array, "N h w"] | None = None
    ) -> Float32[Array, "N 2*h 2*w C"]:
        """Returns the map at twice the size.

        Args:
          x: token map.
          inside: False in padding, which is treated as outside the map; None = no
            padding.
        """
        count, height, width, dim = x.shape
        # PyTorch computes the fan of a transposed convolution from its second axis.
        init = torch_uniform(4 * dim)
        kernel = self.param("enlarge_kernel", init, (dim, 2, 2, dim), jnp.float32)
        bias = self.param("enlarge_bias", init, (dim,), jnp.float32)
        # Windows do not overlap: each cell becomes 2 x 2 by a matrix product.
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        y = jnp.einsum("nhwc,cabd->nhawbd", x, kernel)
        y = y.reshape(count, 2 * height, 2 * width, dim)
        y = y + bias.astype(self.dtype).reshape(1, 1, 1, dim)
        y = gelu(y)
        if inside is not None:
            inside = jnp.repeat(jnp.repeat(inside, 2, axis=1), 2, axis=2)
            y = jnp.where(inside[..., None], y, 0.0)
        shape = (3, 3, 1, dim)
        smooth = self.param("smooth_kernel", torch_uniform(9), shape, jnp.float32)
        y = depthwise(y, smooth.astype(self.dtype))
        return LayerNorm(jnp.float32, _EPSILON, name="norm")(y)
