"""EoMT heads: class and mask of each query from the tokens of a plain transformer.

Kerssies et al., "Your ViT is secretly an image segmentation model", CVPR 2025 (EoMT).
Letters: Q queries, S tokens of an image, C channels, K1 classes including no object, H
W cells of a mask.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import gelu, linear
from vis_jax.layers.queries import mask_logits
from vis_jax.layers.upscale import Upscale
from vis_jax.ops.bilinear import resize
from vis_jax.ops.rotary import inside_content
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32


class QueryPredictions(NamedTuple):
    """One prediction per query."""

    class_logits: Float32[Array, "*lead Q K1"]  # no object last
    mask_logits: Float32[Array, "*lead Q H W"]  # positive = inside


def doublings(patch: int) -> int:
    """Returns the number of 2x upsamplings from the patch map to stride 4.

    Args:
      patch: side of a patch in pixels; with 14 the masks have stride 7.
    """
    return max(1, int(math.log2(patch)) - 2)


class MaskEmbed(nn.Module):
    """Three equally wide linear layers with exact GELUs in between."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float32[Array, "*lead C"]:
        for index in range(3):
            x = linear(x, x.shape[-1], f"layers_{index}", self.dtype)
            x = x if index == 2 else gelu(x)
        return x.astype(jnp.float32)


class ClassHead(nn.Module):
    """Class logits of queries, in float32.

    Attributes:
      outputs: classes, including no object.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float32[Array, "*lead K1"]:
        return linear(x.astype(jnp.float32), self.outputs, "linear")


class Heads(nn.Module):
    """Class logits, mask embeddings and pixel map, shared by all predictions.

    Attributes:
      outputs: classes, including no object.
      doublings: see the function of that name.
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
        """Returns class logits of queries that passed the final norm."""
        return self.class_head(queries)

    def pixels(
        self,
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Float[Array, "N H W C"]:
        """Returns the pixel map for mask prediction, in the compute dtype.

        Args:
          patches: tokens after the final norm, row by row.
          grid: patches by rows and columns.
          content: patches that are not padding (rows, columns); None = all.
        """
        x = patches.reshape(len(patches), *grid, -1)
        for index, layer in enumerate(self.upscale):
            inside = None
            if content is not None:
                inside = _inside(content, grid, 2**index)
            x = layer(x, inside)
        return x.astype(self.dtype)

    def masks(
        self,
        queries: Float[Array, "N Q C"],
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Float32[Array, "N Q H W"]:
        """Returns mask logits, 0 in padding as outside the canvas.

        Queries and patches must have passed the final norm.
        """
        pixels = self.pixels(patches, grid, content)
        masks = mask_logits(self.mask_head(queries), pixels)
        if content is None:
            return masks
        inside = _inside(content, grid, 2**self.doublings)
        return jnp.where(inside[:, None], masks, 0.0)

    def __call__(
        self,
        queries: Float[Array, "N Q C"],
        patches: Float[Array, "N P C"],
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
    ) -> QueryPredictions:
        """Returns classes and masks; arguments as in `masks` and `pixels`."""
        masks = self.masks(queries, patches, grid, content)
        return QueryPredictions(self.classify(queries), masks)


def _inside(
    content: Int32[Array, "N 2"], grid: tuple[int, int], factor: int
) -> Bool[Array, "N h w"]:
    """Returns where a map `factor` times as fine as the patches has content."""
    size = (grid[0] * factor, grid[1] * factor)
    return jax.vmap(functools.partial(inside_content, size=size))(content * factor)


def attend_inside(
    masks: Float32[Array, "N Q H W"],
    masked: Bool[Array, "N Q"],
    grid: tuple[int, int],
    prefix: int,
) -> Bool[Array, "N S S"]:
    """Returns the attention mask that limits queries to patches inside their mask.

    Only query-to-patch attention is limited: a query with an empty mask still attends
    to other queries and the class token.

    Args:
      masks: logits of the prediction before the block.
      masked: queries to limit.
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
    """Returns the attention mask that excludes padded patches.

    Args:
      content: patches that are not padding (rows, columns).
      grid: all patches.
      front: number of tokens before the patches.
    """
    inside = _inside(content, grid, 1).reshape(len(content), 1, -1)
    return jnp.pad(inside, ((0, 0), (0, 0), (front, 0)), constant_values=True)
