"""Plain vision transformers in DINOv2 and DINOv3 form: images to tokens.

Oquab et al., "DINOv2", 2023, with the registers of Darcet et al., "Vision transformers
need registers", ICLR 2024; Simeoni et al., "DINOv3", 2025. The tokens of an image are
its class token, its registers and its patches, row by row. Letters: S tokens, P
patches, C channels.
"""

import functools
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import VIT_INIT
from vis_jax.layers.norm import LayerNorm
from vis_jax.layers.vit_block import Block
from vis_jax.ops.rotary import Rotary, resize_table, rotary_positions
from vis_jax.settings import Count, Natural, OneOf, Range, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

_EPSILON = {"dinov2": 1e-6, "dinov3": 1e-5}  # for all layer norms


class Variant(NamedTuple):
    """Channels, blocks and attention heads."""

    dim: int
    depth: int
    heads: int


VARIANTS = {
    "thin": Variant(32, 4, 2),
    "small": Variant(384, 12, 6),
    "base": Variant(768, 12, 12),
    "large": Variant(1024, 24, 16),
}


@section
class Settings:
    """`model.backbone` of a plain vision transformer."""

    name: Literal["vit"] = "vit"  # the only kind that gives tokens
    variant: Annotated[str, OneOf(VARIANTS)] = "large"  # size; thin trains on a CPU
    # dinov2: a learned position table; dinov3: rotary positions in every block.
    form: Literal["dinov2", "dinov3"] = "dinov2"
    patch: Count = 16  # side of a patch in pixels
    registers: Natural = 4  # extra tokens beside the class token
    table: Count = 40  # side of the position table in patches; only for dinov2
    # In training, scale rotary positions by one random factor per batch, between 1 /
    # rescale and rescale; 1 = never. DINOv3 uses 2.
    rescale: Annotated[float, Range(least=1)] = 1.0
    # Sizes other than the variant's, for files of other models; None = the variant's.
    dim: Count | None = None  # channels
    depth: Count | None = None  # blocks
    heads: Count | None = None  # attention heads
    remat: bool = False  # recompute blocks in the backward pass: less memory

    def __post_init__(self) -> None:
        sizes = sizes_of(self)
        if sizes.dim % (4 * sizes.heads):
            raise ValueError(
                f"heads: expected a number that shares {sizes.dim} channels in"
                f" multiples of 4, got {sizes.heads}"
            )
        if self.form == "dinov2" and self.rescale != 1:
            raise ValueError(
                "rescale: expected 1 with form 'dinov2', which has a table of"
                f" positions, got {self.rescale:g}"
            )


def sizes_of(given: "Settings | ViT") -> Variant:
    """Returns the sizes of the variant, overridden by those given."""
    own = VARIANTS[given.variant]
    return Variant(
        given.dim or own.dim, given.depth or own.depth, given.heads or own.heads
    )


class ViT(nn.Module):
    """A plain vision transformer whose blocks can be run in parts.

    Attributes:
      variant, form, patch, registers, table, dim, depth, heads, remat: see `Settings`.
    """

    variant: str
    form: str = "dinov2"
    patch: int = 16
    registers: int = 4
    table: int = 40
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        sizes = self.sizes
        self.patch_embed = nn.DenseGeneral(
            sizes.dim, axis=(-3, -2, -1), dtype=self.dtype, kernel_init=VIT_INIT
        )
        normal = nn.initializers.normal(0.02)
        self.cls_token = self.param("cls_token", normal, (1, sizes.dim))
        if self.registers:
            shape = (self.registers, sizes.dim)
            self.reg_tokens = self.param("reg_tokens", normal, shape)
        if self.form == "dinov2":
            table = (self.table, self.table, sizes.dim)
            self.positions = self.param("positions", VIT_INIT, table)
        kind = nn.remat(Block) if self.remat else Block
        self.blocks = [
            kind(
                heads=sizes.heads,
                key_bias=self.form == "dinov2",
                mlp_dim=4 * sizes.dim,
                epsilon=_EPSILON[self.form],
                dtype=self.dtype,
            )
            for _ in range(sizes.depth)
        ]
        self.norm = LayerNorm(jnp.float32, _EPSILON[self.form])

    @property
    def sizes(self) -> Variant:
        """Channels, blocks and heads."""
        return sizes_of(self)

    @property
    def prefix(self) -> int:
        """Number of tokens before an image's patches."""
        return 1 + self.registers

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the patches (rows, columns) of a frame of this many pixels."""
        return height // self.patch, width // self.patch

    def rotary(
        self,
        grid: tuple[int, int],
        content: Int32[Array, "N 2"] | None = None,
        scale: Float32[Array, ""] | None = None,
    ) -> Rotary | None:
        """Returns rotary positions for `run`; None for a model with a table.

        Args:
          grid: patches of a frame (rows, columns).
          content: patches that are not padding; None = all.
          scale: scale of the positions; None = 1.
        """
        if self.form == "dinov2":
            return None
        return rotary_of(self.sizes, grid, content, scale)

    def embed(
        self,
        images: Float[Array, "N H W 3"],
        content: Int32[Array, "N 2"] | None = None,
    ) -> Float32[Array, "N S C"]:
        """Returns the tokens before the first block.

        Args:
          images: normalised; rows and columns beyond the last whole patch are dropped.
          content: patches that are not padding (rows, columns), over which the position
            table is stretched; None = all.
        """
        count, side = len(images), self.patch
        height, width = self.grid(*images.shape[1:3])
        x = images[:, : height * side, : width * side]
        x = x.reshape(count, height, side, width, side, 3).transpose(0, 1, 3, 2, 4, 5)
        # A convolution with non-overlapping windows is a matrix product.
        x = self.patch_embed(x.astype(self.dtype)).astype(jnp.float32)
        if self.form == "dinov2":
            x = x + self._positions((height, width), content)
        front = self.cls_token
        if self.registers:
            front = jnp.concatenate([front, self.reg_tokens])
        front = jnp.broadcast_to(front[None], (count, *front.shape))
        return jnp.concatenate([front, x.reshape(count, -1, x.shape[-1])], axis=1)

    def run(
        self,
        x: Float32[Array, "N S C"],
        blocks: range,
        rotary: Rotary | None = None,
        attend: Bool[Array, "N A S"] | None = None,
    ) -> Float32[Array, "N S C"]:
        """Returns the tokens after some of the blocks.

        Args:
          x: tokens, with the patches last; others may come first.
          blocks: block numbers, from 0.
          rotary: see the method of this name.
          attend: True where a token may attend to another; A is S, or 1 for a mask
            shared by all; None = everywhere.
        """
        for index in blocks:
            x = self.blocks[index](x, rotary, attend)
        return x

    def _positions(
        self, grid: tuple[int, int], content: Int32[Array, "N 2"] | None
    ) -> Float32[Array, "N h w C"]:
        """Returns the position table per image, or one for all."""
        if content is None:
            return resize_table(self.positions, grid)[None]
        return jax.vmap(lambda one: resize_table(self.positions, grid, one))(content)

    def __call__(self, images: Float[Array, "N H W 3"]) -> Float32[Array, "N S C"]:
        """Returns all tokens after the last block and the final norm."""
        rotary = self.rotary(self.grid(*images.shape[1:3]))
        x = self.run(self.embed(images), range(self.sizes.depth), rotary)
        return self.norm(x)


def rotary_of(
    sizes: Variant,
    grid: tuple[int, int],
    content: Int32[Array, "N 2"] | None,
    scale: Float32[Array, ""] | None = None,
) -> Rotary:
    """Returns rotary positions of a grid, per image if `content` is given."""
    of = functools.partial(
        rotary_positions, *grid, sizes.dim // sizes.heads, scale=scale
    )
    return of() if content is None else jax.vmap(lambda one: of(content=one))(content)


def build(settings: Settings, dtype: jax.typing.DTypeLike) -> ViT:
    """Builds the transformer of `model.backbone`."""
    fields = dict(vars(settings))
    for name in ("name", "rescale"):  # not part of the network
        fields.pop(name)
    return ViT(**fields, dtype=dtype)
