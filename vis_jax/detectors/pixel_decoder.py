"""Pixel decoder of Mask2Former: deformable attention over strides 32, 16, 8, then one
step of a feature pyramid to stride 4.

Cheng et al., "Masked-attention mask transformer", CVPR 2022, section 3.2.1. Frames are
independent; N is their number.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vis_jax.layers.attention import check_dim
from vis_jax.layers.conv import Conv
from vis_jax.layers.deform import MSDeformAttention
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.bilinear import resize
from vis_jax.ops.pos_embed import sine_2d
from vis_jax.settings import Count, section
from vis_jax.typing import Array, DTypeLike, Float, Float32

_XAVIER = nn.initializers.xavier_uniform()
# detectron2's c2_xavier_fill, PyTorch's kaiming_uniform_(a=1): +-sqrt(3 / fan_in).
_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


@section
class Settings:
    """`model.pixel_decoder`; the defaults are Mask2Former's."""

    dim: Count = 256  # channels; a multiple of 4 and of heads
    mask_dim: Count | None = None  # channels of the mask features; None = dim
    layers: Count = 6  # encoder layers
    heads: Count = 8  # attention heads
    points: Count = 4  # sampling points per head and level
    mlp_dim: Count = 1024  # width of the feed-forward part
    remat: bool = False  # recompute layers in the backward pass: less memory

    def __post_init__(self) -> None:
        check_dim(self.dim, self.heads)


class PixelFeatures(NamedTuple):
    """Features that the query decoder attends to."""

    levels: tuple[Float[Array, "N _ _ C"], ...]  # strides 32, 16, 8
    mask_features: Float[Array, "N H4 W4 D"]  # stride 4, D = mask_dim


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward, each followed by its norm."""

    dim: int
    heads: int
    points: int
    mlp_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N S C"],
        positions: Float[Array, "S C"],
        shapes: tuple[tuple[int, int], ...],
    ) -> Float[Array, "N S C"]:
        attention = MSDeformAttention(
            self.dim, self.heads, len(shapes), self.points, self.dtype, name="self_attn"
        )
        queries = x + positions[None]
        y = attention(queries, x, reference_points(shapes), shapes=shapes)
        x = LayerNorm(dtype=self.dtype, name="norm1")(x + y)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_XAVIER)
        y = nn.relu(dense(self.mlp_dim, name="linear1")(x))
        y = dense(self.dim, name="linear2")(y)
        return LayerNorm(dtype=self.dtype, name="norm2")(x + y)


class PixelDecoder(nn.Module):
    """Maps backbone features to three levels of `dim` channels, and mask features.

    Attributes:
      dim, layers, heads, points, mlp_dim, remat, mask_dim: see `Settings`.
      dtype: compute dtype; the source stays in float32 under mixed precision.
    """

    dim: int
    layers: int
    heads: int
    points: int
    mlp_dim: int
    remat: bool = False
    mask_dim: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "N _ _ _"]]) -> PixelFeatures:
        """Refines the features 'res2' .. 'res5', strides 4, 8, 16, 32."""
        maps = [self._project(features[f"res{5 - i}"], i) for i in range(3)]
        shapes = tuple((x.shape[1], x.shape[2]) for x in maps)
        level_embed = self.param(
            "level_embed", nn.initializers.normal(1.0), (3, self.dim), jnp.float32
        )
        places = [
            sine_2d(h, w, self.dim).reshape(h * w, self.dim) + level_embed[i][None]
            for i, (h, w) in enumerate(shapes)
        ]
        positions = jnp.concatenate(places).astype(self.dtype)
        n = maps[0].shape[0]
        x = jnp.concatenate([x.reshape(n, -1, self.dim) for x in maps], axis=1)
        kind = nn.remat(EncoderLayer, static_argnums=3) if self.remat else EncoderLayer
        for index in range(self.layers):
            layer = kind(
                dim=self.dim,
                heads=self.heads,
                points=self.points,
                mlp_dim=self.mlp_dim,
                dtype=self.dtype,
                name=f"encoder_{index}",
            )
            x = layer(x, positions, shapes)
        ends = np.cumsum([h * w for h, w in shapes])[:-1]
        levels = tuple(
            part.reshape(n, h, w, self.dim)
            for part, (h, w) in zip(jnp.split(x, ends, axis=1), shapes, strict=True)
        )
        return PixelFeatures(levels, self._pyramid(features["res2"], levels[2]))

    def _project(
        self, x: Float[Array, "N h w _"], level: int
    ) -> Float[Array, "N h w C"]:
        conv = Conv(
            self.dim,
            1,
            norm="group",
            use_bias=True,
            kernel_init=_XAVIER,
            dtype=self.dtype,
            name=f"input_proj_{level}",
        )
        return conv(x)

    def _pyramid(
        self, res2: Float[Array, "N H4 W4 _"], level: Float[Array, "N h w C"]
    ) -> Float[Array, "N H4 W4 D"]:
        """Returns mask features: the upsampled finest level plus backbone stride 4."""
        conv = functools.partial(Conv, kernel_init=_FAN_IN, dtype=self.dtype)
        lateral = conv(self.dim, 1, norm="group", name="adapter_1")(res2)
        y = lateral + resize(level, (res2.shape[1], res2.shape[2])).astype(self.dtype)
        y = nn.relu(conv(self.dim, 3, norm="group", name="layer_1")(y))
        width = self.mask_dim or self.dim
        return conv(width, 1, use_bias=True, name="mask_features")(y)


def reference_points(
    shapes: tuple[tuple[int, int], ...],
) -> Float32[Array, "S 2"]:
    """Returns the centre of every pixel of every level: x, y in [0, 1]."""
    points = []
    for height, width in shapes:
        y, x = np.mgrid[:height, :width] + 0.5
        points.append(np.stack([x / width, y / height], axis=-1).reshape(-1, 2))
    return jnp.asarray(np.concatenate(points), jnp.float32)
