"""VGG-16 without its classifier, in blocks whose outputs can be modulated.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", ICLR 2015, configuration D.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.typing import Array, DTypeLike, Float

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
STRIDE = 32  # stride of the last pooling's output


class Modulation(NamedTuple):
    """Scale and shift of the output of each convolution of a block, after its ReLU.

    C channels of the block, D convolutions.
    """

    scale: Float[Array, "N D C"]
    shift: Float[Array, "N h w D*C"]  # convolution by convolution


class VGGBlock(nn.Module):
    """3x3 convolutions with ReLU, `conv3_1`, `conv3_2`, .. in a block named `conv3`.

    Attributes:
      width: output channels of each convolution.
      depth: number of convolutions.
    """

    width: int
    depth: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N h w B"], modulation: Modulation | None = None
    ) -> Float[Array, "N h w C"]:
        """Runs the block; with modulation: scale * relu(convolution) + shift."""
        for index in range(self.depth):
            name = f"{self.name}_{index + 1}"
            conv = Conv(self.width, 3, use_bias=True, dtype=self.dtype, name=name)
            x = nn.relu(conv(x))
            if modulation is not None:
                start = index * self.width
                shift = modulation.shift[..., start : start + self.width]
                scale = modulation.scale[:, index, None, None]
                x = x * scale.astype(self.dtype) + shift.astype(self.dtype)
        return x


class VGG(nn.Module):
    """The blocks `conv1` .. `conv5`, each followed by 2 x 2 max pooling."""

    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"]) -> Float[Array, "N h w C"]:
        """Returns stride-32 features of normalised images."""
        for index, (width, depth) in enumerate(
            zip(self.widths, self.depths, strict=True)
        ):
            block = VGGBlock(width, depth, self.dtype, name=f"conv{index + 1}")
            x = max_pool(block(x))
        return x


def max_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
    """Applies 2 x 2 max pooling to a map of even height and width."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
