"""The clip decoder of Mask2Former-VIS: queries attend to all frames of a clip at once.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, and "Mask2Former for Video
Instance Segmentation", 2021. Letters: S tokens of one level in one frame.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.layers.attention import MultiHeadAttention, check_dim
from vis_jax.layers.mlp import FeedForward
from vis_jax.layers.norm import LayerNorm
from vis_jax.layers.queries import (
    ClipFeatures,
    DecoderOutput,
    DecoderSettings,
    QueryHeads,
    QueryTables,
    add_level,
    foreground,
    resized_features,
)
from vis_jax.ops.pos_embed import sine_1d, sine_2d
from vis_jax.settings import section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32


@section
class Settings(DecoderSettings):
    """`model.mask_decoder` of Mask2Former-VIS: queries see all frames of a clip."""

    kind: Literal["m2f_vis"] = "m2f_vis"  # or ifr, with fields of its own

    def __post_init__(self) -> None:
        check_dim(self.dim, self.heads)


class ClipDecoder(nn.Module):
    """The Mask2Former-VIS decoder: clip queries attend to all frames at once.

    With one frame it is the image decoder of Mask2Former.
    """

    dim: int
    heads: int
    layers: int
    queries: int
    mlp_dim: int
    outputs: int
    prior: float | None
    mask_dim: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: ClipFeatures, frame_valid: Bool[Array, "B T"]
    ) -> DecoderOutput:
        """Returns predictions of every layer.

        Args:
          features: features of all frames of each clip.
          frame_valid: False marks padding, which is not attended.
        """
        tables = QueryTables(
            self.queries, self.dim, len(features.levels), name="tables"
        )
        query_feat, query_embed, level_embed = tables()
        batch, frames = frame_valid.shape
        heads = QueryHeads(
            self.dim, self.outputs, self.prior, self.dtype, self.mask_dim, name="heads"
        )
        fine = resized_features(features)
        position = query_embed.astype(self.dtype)[None]
        x = jnp.broadcast_to(query_feat, (batch, *query_feat.shape)).astype(self.dtype)
        classes, embeds = [heads.classify(x)], [heads.embed(x)]
        for index in range(self.layers):
            level = index % len(features.levels)
            tokens = add_level(features.levels[level], level_embed[level])
            size = (tokens.shape[2], tokens.shape[3])
            where = space_time_position(size, self.dim, frame_valid)
            keys = (tokens + where.astype(self.dtype)).reshape(batch, -1, self.dim)
            values = tokens.reshape(batch, -1, self.dim)
            per_frame = jnp.repeat(embeds[-1][:, None], frames, axis=1)
            attend = attend_clip(foreground(per_frame, fine[level]), frame_valid)
            x = self._layer(index, x, position, keys, values, attend)
            classes.append(heads.classify(x))
            embeds.append(heads.embed(x))
        per_frame = jnp.repeat(jnp.stack(embeds)[:, :, None], frames, axis=2)
        return DecoderOutput(jnp.stack(classes), per_frame)

    def _layer(
        self,
        index: int,
        x: Float[Array, "B Q C"],
        position: Float[Array, "1 Q C"],
        keys: Float[Array, "B K C"],
        values: Float[Array, "B K C"],
        attend: Bool[Array, "B Q K"],
    ) -> Float[Array, "B Q C"]:
        """Applies masked cross-attention, self-attention and feed-forward."""
        cross = MultiHeadAttention(
            self.dim, self.heads, self.dtype, name=f"cross_attention_{index}"
        )
        attention = MultiHeadAttention(
            self.dim, self.heads, self.dtype, name=f"self_attention_{index}"
        )
        feed = FeedForward(self.mlp_dim, self.dtype, name=f"ffn_{index}")

        def norm(part: str, y: Float[Array, "B Q C"]) -> Float[Array, "B Q C"]:
            return LayerNorm(self.dtype, name=f"{part}_norm_{index}")(y)

        x = norm("cross", x + cross(x + position, keys, values, attend))
        x = norm("self", x + attention(x + position, x + position, x))
        return norm("ffn", x + feed(x))


def space_time_position(
    size: tuple[int, int], dim: int, frame_valid: Bool[Array, "B T"]
) -> Float32[Array, "B T h w C"]:
    """Returns pixel sine embeddings plus frame embeddings scaled to real frames."""
    space = sine_2d(*size, dim)
    extent = frame_valid.sum(axis=1).astype(jnp.float32)
    time = sine_1d(frame_valid.shape[1], dim, extent)
    return space[None, None] + time[:, :, None, None]


def attend_clip(
    inside: Bool[Array, "B T Q S"], frame_valid: Bool[Array, "B T"]
) -> Bool[Array, "B Q T*S"]:
    """Returns the keys of a clip each query may attend to; all if none is inside."""
    batch, frames, queries, tokens = inside.shape
    real = jnp.broadcast_to(frame_valid[:, :, None, None], inside.shape)
    inside = (inside & real).swapaxes(1, 2).reshape(batch, queries, frames * tokens)
    real = real.swapaxes(1, 2).reshape(batch, queries, frames * tokens)
    return jnp.where(inside.any(axis=-1, keepdims=True), inside, real)
