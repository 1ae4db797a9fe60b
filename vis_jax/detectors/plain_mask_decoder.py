"""Query blocks on top of a frozen transformer: the plain mask decoder of PMT.

"PMT: plain mask transformer for image and video segmentation with frozen vision
encoders", 2026. Letters: S tokens of an image, C channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import gelu, linear
from vis_jax.layers.norm import BatchNorm, LayerNorm
from vis_jax.layers.vit_block import Block
from vis_jax.ops.rotary import Rotary
from vis_jax.typing import Array, Bool, DTypeLike, Float32

_EPSILON = 1e-5  # for all layer norms


class Lateral(nn.Module):
    """Tokens of one level: batch norm, a residual MLP, and a scale."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float32[Array, "N S C"],
        train: bool = False,
        valid: Bool[Array, "N S"] | None = None,
    ) -> Float32[Array, "N S C"]:
        """Returns (x + fc2(gelu(fc1(x)))) scale, of normalised tokens.

        Args:
          x: tokens after the backbone's final norm.
          train: train mode of batch norm.
          valid: tokens that count in its statistics; None = all.
        """
        dim = x.shape[-1]
        x = BatchNorm(name="norm")(x, train, valid)
        y = gelu(linear(x, dim // 2, "fc1", self.dtype))
        y = linear(y, dim, "fc2", self.dtype).astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (dim,), jnp.float32)
        return (x + y) * scale[None, None]


class PlainMaskDecoder(nn.Module):
    """Blocks in the form of DINOv3, with an MLP as wide as the tokens.

    Attributes:
      dim, heads: width of the tokens, and attention heads.
      levels: number of levels that are summed.
      depth: number of blocks.
    """

    dim: int
    heads: int
    levels: int
    depth: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.laterals = [Lateral(self.dtype) for _ in range(self.levels)]
        self.blocks = [
            Block(self.heads, False, self.dim, _EPSILON, self.dtype)
            for _ in range(self.depth)
        ]
        self.norm = LayerNorm(jnp.float32, _EPSILON)

    def fuse(
        self,
        levels: Sequence[Float32[Array, "N S C"]],
        train: bool = False,
        valid: Bool[Array, "N S"] | None = None,
    ) -> Float32[Array, "N S C"]:
        """Returns the fused tokens that queries join.

        Args:
          levels: tokens after the backbone's final norm.
          train, valid: see `Lateral`.
        """
        pairs = zip(self.laterals, levels, strict=True)
        parts = [lateral(x, train, valid) for lateral, x in pairs]
        return sum(parts[1:], start=parts[0])

    def run(
        self,
        x: Float32[Array, "N S C"],
        blocks: range,
        rotary: Rotary | None = None,
        attend: Bool[Array, "N A S"] | None = None,
    ) -> jax.Array:
        """Returns tokens after some of the blocks; arguments as in `ViT.run`."""
        for index in blocks:
            x = self.blocks[index](x, rotary, attend)
        return x
