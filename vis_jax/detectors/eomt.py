"""What a plain transformer's tokens say: classes and masks of its queries.

Kerssies et al., "Your ViT is secretly an image segmentation model", CVPR 2025 (EoMT).
Letters: Q queries, S tokens of an image, C channels, K1 classes and one for no object,
H W cells of a mask.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import linear
from vis_jax.layers.queries import mask_logits
from vis_jax.layers.upscale import Upscale
from vis_jax.ops.bilinear import resize
from vis_jax.ops.rotary import inside_content
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32


class Found(NamedTuple):
    """One prediction for every query."""

    class_logits: Float32[Array, "*lead Q K1"]  # the last one is no object
    mask_logits: Float32[Array, "*lead Q H W"]  # positive = inside


def doublings(patch: int) -> int:
    """How often the map of patches is enlarged to twice its size: to stride 4.

    Args:
      patch: side of a patch in pixels; with 14 the masks have stride 7.
    """
    return max(1, int(math.log2(patch)) - 2)


class MaskEmbed(nn.Module):
    """Three linear layers with exact GELUs between, of one width."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float32[Array, "*lead C"]:
        for index in range(3):
            x = linear(x, x.shape[-1], f"layers_{index}", self.dtype)
            x = x if index == 2 else nn.gelu(x, approximate=False)
        return x.astype(jnp.float32)


class ClassHead(nn.Module):
    """Class logits of queries, in float32.

    Attributes:
      outputs: classes and no object.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float32[Array, "*lead K1"]:
        return linear(x.astype(jnp.float32), self.outputs, "linear")


class Heads(nn.Module):
    """Class, mask embedding and map of pixels; shared by all predictions.

    Attributes:
      outputs: classes and no object.
      doublings: see the function.
    """

    outputs: int
    doublings: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.class_head = ClassHead(self.outputs)
        self.mask_head = MaskEmbed(self.dtype)
        self.upscale = [Upscale(self.dtype) for _ in range(self.doublings)]

    def classify(
        self, queries: Float[Array, "*lead Q C"]
    ) -> Float32[Array, "*lead Q K1"]:
        """Class logits of queries behind the final norm."""
        return self.class_head(queries)

    def pixels(
        self,
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Float[Array, "N H W C"]:
        """The map that masks are read from, in the compute dtype.

        Args:
          patches: tokens behind the final norm, row by row.
          grid: how many there are by rows and columns.
          content: how many of them are no padding; None = all.
        """
        x = patches.reshape(len(patches), *grid, -1)
        for index, layer in enumerate(self.upscale):
            inside = None
            if content is not None:
                size = (grid[0] * 2**index, grid[1] * 2**index)
                part = functools.partial(inside_content, size=size)
                inside = jax.vmap(part)(content * 2**index)
            x = layer(x, inside)
        return x.astype(self.dtype)

    def masks(
        self,
        queries: Float[Array, "N Q C"],
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Float32[Array, "N Q H W"]:
        """Mask logits of queries; both kinds of tokens are behind the final norm."""
        pixels = self.pixels(patches, grid, content)
        return mask_logits(self.mask_head(queries), pixels)

    def __call__(
        self,
        queries: Float[Array, "N Q C"],
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Found:
        """Classes and masks; arguments as `masks` and `pixels`."""
        masks = self.masks(queries, patches, grid, content)
        return Found(self.classify(queries), masks)


def attend_inside(
    masks: Float32[Array, "N Q H W"],
    masked: Bool[Array, "N Q"],
    grid: tuple[int, int],
    prefix: int,
) -> Bool[Array, "N S S"]:
    """Which tokens look at which, where queries see the patches of their mask alone.

    Only the view of queries on patches is limited: a query without a patch in its mask
    still sees the other queries and the class token.

    Args:
      masks: logits of the prediction before the block.
      masked: queries that are limited.
      grid: patches by rows and columns.
      prefix: tokens between queries and patches.
    """
    count, queries = masks.shape[:2]
    small = resize(jnp.moveaxis(masks, 1, -1), grid)
    inside = jnp.moveaxis(small > 0, -1, 1).reshape(count, queries, -1)
    inside |= ~masked[:, :, None]
    size = queries + prefix + inside.shape[-1]
    attend = jnp.ones((count, size, size), bool)
    return attend.at[:, :queries, queries + prefix :].set(inside)


def attend_content(
    content: Int32[Array, "N 2"], grid: tuple[int, int], front: int
) -> Bool[Array, "N 1 S"]:
    """Which tokens others may look at, where patches of padding are left out.

    Args:
      content: patches that are no padding, by rows and columns.
      grid: all patches.
      front: tokens in front of the patches.
    """
    part = functools.partial(inside_content, size=grid)
    inside = jax.vmap(part)(content).reshape(len(content), 1, -1)
    return jnp.pad(inside, ((0, 0), (0, 0), (front, 0)), constant_values=True)
