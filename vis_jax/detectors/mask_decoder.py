"""Queries that become instances: heads, masked attention, the clip decoder.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, and "Mask2Former for Video
Instance Segmentation", 2021. Letters: S tokens of one level in one frame, L predictions
(one before the first layer, one after each).
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.attention import MultiHeadAttention
from vis_jax.layers.mlp import FeedForward, Mlp, torch_uniform
from vis_jax.ops.bilinear import resize
from vis_jax.ops.pos_embed import sine_1d, sine_2d
from vis_jax.typing import Array, Bool, Float, Float32

EPSILON = 1e-5  # of every layer norm


class ClipFeatures(NamedTuple):
    """Pixel decoder outputs of clips."""

    levels: tuple[Float[Array, "B T h w C"], ...]  # strides 32, 16, 8
    mask_features: Float[Array, "B T h w C"]  # stride 4


class DecoderOutput(NamedTuple):
    """Every prediction of a decoder, the last one being the result."""

    class_logits: Float32[Array, "L B Q K"]
    # The mask of query q in frame t is mask_embeds[t, q] . mask_features[t].
    mask_embeds: Float32[Array, "L B T Q C"]


class QueryHeads(nn.Module):
    """Class and mask embedding of a query; shared by all layers.

    Attributes:
      outputs: class logits, with no-object if the class loss has one.
      prior: probability that every class starts from (focal loss), None = default.
    """

    dim: int
    outputs: int
    prior: float | None
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        init = torch_uniform(self.dim)
        bias = init
        if self.prior is not None:
            logit = -math.log(1 / self.prior - 1)
            bias = nn.initializers.constant(logit)
        self.decoder_norm = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.class_embed = nn.Dense(
            self.outputs, dtype=jnp.float32, kernel_init=init, bias_init=bias
        )
        self.mask_embed = Mlp(self.dim, self.dim, layers=3, dtype=self.dtype)

    def classify(self, queries: Float[Array, "B Q C"]) -> Float32[Array, "B Q K"]:
        """Class logits."""
        return self.class_embed(self.decoder_norm(queries).astype(jnp.float32))

    def embed(self, queries: Float[Array, "*lead Q C"]) -> Float32[Array, "*lead Q C"]:
        """Mask embeddings."""
        return self.mask_embed(self.decoder_norm(queries)).astype(jnp.float32)


def mask_logits(
    embeds: Float[Array, "*lead Q C"], features: Float[Array, "*lead h w C"]
) -> Float32[Array, "*lead Q h w"]:
    """Dot product of mask embeddings with mask features."""
    return jnp.einsum(
        "...qc,...hwc->...qhw",
        embeds.astype(features.dtype),
        features,
        preferred_element_type=jnp.float32,
    )


def foreground(
    embeds: Float32[Array, "B T Q C"], features: Float[Array, "B T h w C"]
) -> Bool[Array, "B T Q S"]:
    """Where a query's mask is at least one half at the resolution of `features`.

    Resizing and the product with the embedding commute, so the mask features are
    resized once for each level and the stride-4 masks are never formed.
    """
    logits = mask_logits(jax.lax.stop_gradient(embeds), features)
    return (logits >= 0).reshape(*logits.shape[:3], -1)


def resized_features(features: ClipFeatures) -> list[Float[Array, "B T h w C"]]:
    """Mask features at the size of every level, without gradient."""
    fine = jax.lax.stop_gradient(features.mask_features)
    return [resize(fine, level.shape[2:4]) for level in features.levels]


class QueryTables(nn.Module):
    """The learned tables both decoders start from."""

    queries: int
    dim: int
    levels: int

    @nn.compact
    def __call__(self):
        """Returns query features [Q, C], positions [Q, C], level vectors [L, C]."""
        normal = nn.initializers.normal(1.0)
        return (
            self.param("query_feat", normal, (self.queries, self.dim)),
            self.param("query_embed", normal, (self.queries, self.dim)),
            self.param("level_embed", normal, (self.levels, self.dim)),
        )


class ClipDecoder(nn.Module):
    """The Mask2Former-VIS decoder: clip queries look at all frames at once.

    With one frame it is the image decoder of Mask2Former.
    """

    dim: int
    heads: int
    layers: int
    queries: int
    mlp_dim: int
    outputs: int
    prior: float | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: ClipFeatures, frame_valid: Bool[Array, "B T"]
    ) -> DecoderOutput:
        """Predictions of every layer.

        Args:
          features: of all frames of each clip.
          frame_valid: False marks padding, which no query looks at.
        """
        tables = QueryTables(
            self.queries, self.dim, len(features.levels), name="tables"
        )
        query_feat, query_embed, level_embed = tables()
        batch, frames = frame_valid.shape
        heads = QueryHeads(
            self.dim, self.outputs, self.prior, self.dtype, name="heads"
        )
        fine = resized_features(features)
        position = query_embed.astype(self.dtype)
        x = jnp.broadcast_to(query_feat, (batch, *query_feat.shape)).astype(self.dtype)
        classes, embeds = [heads.classify(x)], [heads.embed(x)]
        for index in range(self.layers):
            level = index % len(features.levels)
            tokens = features.levels[level] + level_embed[level].astype(self.dtype)
            where = space_time_position(tokens.shape[2:4], self.dim, frame_valid)
            keys = (tokens + where.astype(self.dtype)).reshape(batch, -1, self.dim)
            values = tokens.reshape(batch, -1, self.dim)
            per_frame = jnp.repeat(embeds[-1][:, None], frames, axis=1)
            attend = attend_clip(foreground(per_frame, fine[level]), frame_valid)
            x = self._layer(index, x, position, keys, values, attend)
            classes.append(heads.classify(x))
            embeds.append(heads.embed(x))
        embeds = jnp.repeat(jnp.stack(embeds)[:, :, None], frames, axis=2)
        return DecoderOutput(jnp.stack(classes), embeds)

    def _layer(self, index, x, position, keys, values, attend):
        """Masked attention over pixels, attention over queries, feed-forward."""
        cross = MultiHeadAttention(
            self.dim, self.heads, self.dtype, name=f"cross_attention_{index}"
        )
        attention = MultiHeadAttention(
            self.dim, self.heads, self.dtype, name=f"self_attention_{index}"
        )
        feed = FeedForward(self.mlp_dim, self.dtype, name=f"ffn_{index}")

        def norm(part, y):
            layer = nn.LayerNorm(EPSILON, self.dtype, name=f"{part}_norm_{index}")
            return layer(y)

        x = norm("cross", x + cross(x + position, keys, values, attend))
        x = norm("self", x + attention(x + position, x + position, x))
        return norm("ffn", x + feed(x))


def space_time_position(
    size: tuple[int, int], dim: int, frame_valid: Bool[Array, "B T"]
) -> Float32[Array, "B T h w C"]:
    """Sine embedding of the pixel plus that of the frame, scaled to real frames."""
    space = sine_2d(*size, dim)
    extent = frame_valid.sum(axis=1).astype(jnp.float32)
    time = sine_1d(frame_valid.shape[1], dim, extent)
    return space[None, None] + time[:, :, None, None]


def attend_clip(
    inside: Bool[Array, "B T Q S"], frame_valid: Bool[Array, "B T"]
) -> Bool[Array, "B Q T*S"]:
    """Keys of the whole clip a query may look at; all of them if none is inside."""
    batch, frames, queries, tokens = inside.shape
    real = jnp.broadcast_to(frame_valid[:, :, None, None], inside.shape)
    inside = (inside & real).swapaxes(1, 2).reshape(batch, queries, frames * tokens)
    real = real.swapaxes(1, 2).reshape(batch, queries, frames * tokens)
    return jnp.where(inside.any(axis=-1, keepdims=True), inside, real)
