"""Swin transformer in the layout of Mask2Former: images to strides 4, 8, 16, 32.

Liu et al., "Swin transformer: hierarchical vision transformer using shifted windows",
ICCV 2021.
"""

import functools
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.layers.mlp import VIT_INIT, DropPath, GeluMlp
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.windows import merge, pad_map, partition, relative_index, shift_attend
from vis_jax.settings import Count, OneOf, Share, section
from vis_jax.typing import Array, Bool, DTypeLike, Float

_STAGES = 4
_BLOCKED = -100.0  # added to logits across the seam of a rolled map, as in the source


class Variant(NamedTuple):
    """Channels of the first stage, blocks and heads per stage, default window."""

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int


VARIANTS = {
    "thin": Variant(16, (1, 2, 2, 1), (1, 2, 4, 8), 4),
    "tiny": Variant(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "small": Variant(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "base": Variant(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "large": Variant(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}


@section
class Settings:
    """`model.backbone` of a Swin transformer."""

    name: Literal["swin"] = "swin"  # or resnet, with fields of its own
    variant: Annotated[str, OneOf(VARIANTS)] = "tiny"  # size; thin trains on a CPU
    window: Count | None = None  # window side in tokens; None = the variant's
    # Sizes other than the variant's, for files of other models; None = the variant's.
    dim: Count | None = None  # channels of the first stage, doubled in each later one
    depths: tuple[Count, ...] | None = None  # blocks per stage, four stages
    heads: tuple[Count, ...] | None = None  # attention heads per stage
    # Rate of the last block, rising linearly from 0 at the first; drawn per frame.
    drop_path: Share = 0.3
    remat: bool = False  # recompute blocks in the backward pass: less memory

    def __post_init__(self) -> None:
        sizes = sizes_of(self)
        for name in ("depths", "heads"):
            found = getattr(sizes, name)
            if len(found) != _STAGES:
                raise ValueError(
                    f"{name}: expected a number for each of {_STAGES} stages, got"
                    f" {found}"
                )
        for stage, heads in enumerate(sizes.heads):
            if (sizes.dim << stage) % heads:
                raise ValueError(
                    f"heads: expected divisors of {sizes.dim << stage}, the channels"
                    f" of stage {stage}, got {heads}"
                )


def sizes_of(given: "Settings | Swin") -> Variant:
    """Returns the sizes of the variant, overridden by those given."""
    own = VARIANTS[given.variant]
    return Variant(
        dim=given.dim or own.dim,
        depths=given.depths or own.depths,
        heads=given.heads or own.heads,
        window=given.window or own.window,
    )


class WindowAttention(nn.Module):
    """Self-attention within windows, biased by relative position."""

    heads: int
    window: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "N W K C"], attend: np.ndarray | None
    ) -> Float[Array, "N W K C"]:
        dim = x.shape[-1]
        table = self.param(
            "relative_position_bias_table",
            VIT_INIT,
            ((2 * self.window - 1) ** 2, self.heads),
            jnp.float32,
        )
        bias = table[relative_index(self.window)].transpose(2, 0, 1)
        qkv = nn.DenseGeneral(
            (3, self.heads, dim // self.heads),
            dtype=self.dtype,
            kernel_init=VIT_INIT,
            name="qkv",
        )(x)
        q, k, v = jnp.moveaxis(qkv, -3, 0)
        q = q * (dim // self.heads) ** -0.5
        logits = jnp.einsum("nwqhd,nwkhd->nwhqk", q, k).astype(jnp.float32)
        logits = logits + bias[None, None]
        if attend is not None:
            seam = np.where(attend, 0.0, _BLOCKED).astype(np.float32)
            logits = logits + seam[None, :, None]
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        y = jnp.einsum("nwhqk,nwkhd->nwqhd", weights, v)
        y = y.reshape(*x.shape[:3], dim)
        return nn.Dense(dim, dtype=self.dtype, kernel_init=VIT_INIT, name="proj")(y)


class Block(nn.Module):
    """Window attention and MLP, each pre-norm."""

    heads: int
    window: int
    shift: int
    drop_path: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool
    ) -> Float[Array, "N H W C"]:
        drop = DropPath(self.drop_path)
        y = self._attend(LayerNorm(dtype=self.dtype, name="norm1")(x))
        x = x + drop(y, train)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = GeluMlp(4 * x.shape[-1], self.dtype, name="mlp")(y)
        return x + drop(y, train)

    def _attend(self, x: jax.Array) -> jax.Array:
        """Attends within windows of the padded map, rolled in shifted blocks.

        Padding is added after the norm: its zero tokens take part in the attention.
        """
        _, height, width, _ = x.shape
        x = pad_map(x, self.window)
        high, wide = x.shape[1:3]
        attend = None
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), axis=(1, 2))
            attend = shift_attend(high, wide, self.window, self.shift)
        windows = jax.vmap(lambda one: partition(one, self.window))(x)
        attention = WindowAttention(self.heads, self.window, self.dtype, name="attn")
        windows = attention(windows, attend)
        join = functools.partial(merge, height=high, width=wide, window=self.window)
        x = jax.vmap(join)(windows)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), axis=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the channels."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        dim = x.shape[-1]
        x = pad_map(x, 2)
        # Row parity runs fastest: (0, 0), (1, 0), (0, 1), (1, 1).
        phases = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = jnp.concatenate(phases, axis=-1)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        return nn.Dense(
            2 * dim,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=VIT_INIT,
            name="reduction",
        )(x)


class PatchEmbed(nn.Module):
    """Embeds every 4 x 4 pixels as one token."""

    dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: Float[Array, "N H W 3"]) -> Float[Array, "N h w C"]:
        x = pad_map(images, 4)
        n, height, width, _ = x.shape
        # A stride-4 convolution with non-overlapping windows is a matrix product.
        x = x.reshape(n, height // 4, 4, width // 4, 4, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5)
        x = nn.DenseGeneral(self.dim, axis=(-3, -2, -1), dtype=self.dtype, name="proj")(
            x
        )
        return LayerNorm(dtype=self.dtype, name="norm")(x)


class Swin(nn.Module):
    """Stages 'res2' to 'res5' of a Swin transformer, each with its own output norm.

    Attributes:
      variant, window, dim, depths, heads, drop_path, remat: see `Settings`; drop path
        uses the rng stream 'drop_path'.
    """

    variant: str
    window: int | None = None
    dim: int | None = None
    depths: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    drop_path: float = 0.3
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "N H W 3"],
        train: bool = False,
        valid: Bool[Array, "N"] | None = None,
    ) -> dict[str, Float[Array, "N _ _ _"]]:
        """Returns features by name.

        Args:
          images: normalised; any size (maps of odd size are padded before halving).
          train: enables drop path.
          valid: as in other backbones; unused, as images are independent.
        """
        del valid
        spec = sizes_of(self)
        window = spec.window
        rates = np.linspace(0.0, self.drop_path, sum(spec.depths)).tolist()
        kind = nn.remat(Block, static_argnums=2) if self.remat else Block
        x = PatchEmbed(spec.dim, self.dtype, name="patch_embed")(images)
        features = {}
        for stage, (depth, heads) in enumerate(
            zip(spec.depths, spec.heads, strict=True)
        ):
            if stage > 0:
                name = f"downsample_{stage - 1}"
                x = PatchMerging(self.dtype, name=name)(x)
            for index in range(depth):
                x = kind(
                    heads=heads,
                    window=window,
                    shift=window // 2 if index % 2 else 0,
                    drop_path=rates.pop(0),
                    dtype=self.dtype,
                    name=f"layers_{stage}_{index}",
                )(x, train)
            norm = LayerNorm(dtype=self.dtype, name=f"norm{stage}")
            features[f"res{stage + 2}"] = norm(x)
        return features
