"""Object queries: tables, heads and masked attention.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, section 3.2. Letters: S
tokens of one level in one frame, L predictions (one before the first decoder layer, one
after each).
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import Mlp, torch_uniform
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.bilinear import resize
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32


@section
class DecoderSettings:
    """Settings shared by both kinds of `model.mask_decoder`."""

    dim: Count = 256  # channels; a multiple of 4 and of heads
    mask_dim: Count | None = None  # channels of the mask embeddings; None = dim
    layers: Count = 9  # decoder layers; each predicts
    heads: Count = 8  # attention heads
    queries: Count = 100  # most instances per clip
    mlp_dim: Count = 2048  # width of the feed-forward part


class ClipFeatures(NamedTuple):
    """Pixel decoder outputs for clips."""

    levels: tuple[Float[Array, "B T _ _ C"], ...]  # strides 32, 16, 8
    mask_features: Float[Array, "B T h w D"]  # stride 4


class DecoderOutput(NamedTuple):
    """Predictions of every decoder layer; the last is the result."""

    class_logits: Float32[Array, "L B Q K"]
    # The mask of query q in frame t is mask_embeds[t, q] . mask_features[t].
    mask_embeds: Float32[Array, "L B T Q D"]


class QueryHeads(nn.Module):
    """Class and mask embedding heads of queries, shared by all layers.

    Attributes:
      outputs: number of class logits, including no-object if the loss has one.
      prior: initial probability of every class (focal loss), None = default.
      mask_dim: channels of the mask embeddings, None = dim.
    """

    dim: int
    outputs: int
    prior: float | None
    dtype: DTypeLike = jnp.float32
    mask_dim: int | None = None

    def setup(self) -> None:
        init = torch_uniform(self.dim)
        bias = init
        if self.prior is not None:
            logit = -math.log(1 / self.prior - 1)
            bias = nn.initializers.constant(logit)
        self.decoder_norm = LayerNorm(dtype=self.dtype)
        self.class_embed = nn.Dense(
            self.outputs, dtype=jnp.float32, kernel_init=init, bias_init=bias
        )
        self.mask_embed = Mlp(
            self.dim, self.mask_dim or self.dim, layers=3, dtype=self.dtype
        )

    def classify(self, queries: Float[Array, "B Q C"]) -> Float32[Array, "B Q K"]:
        """Returns class logits."""
        return self.class_embed(self.decoder_norm(queries).astype(jnp.float32))

    def embed(self, queries: Float[Array, "*lead Q C"]) -> Float32[Array, "*lead Q D"]:
        """Returns mask embeddings."""
        return self.mask_embed(self.decoder_norm(queries)).astype(jnp.float32)


def mask_logits(
    embeds: Float[Array, "*lead Q C"], features: Float[Array, "*lead h w C"]
) -> Float32[Array, "*lead Q h w"]:
    """Returns dot products of mask embeddings with mask features."""
    return jnp.einsum(
        "...qc,...hwc->...qhw",
        embeds.astype(features.dtype),
        features,
        preferred_element_type=jnp.float32,
    )


def foreground(
    embeds: Float32[Array, "B T Q C"], features: Float[Array, "B T h w C"]
) -> Bool[Array, "B T Q S"]:
    """Returns where each query's mask is at least one half, at the size of `features`.

    Resizing commutes with the product with the embedding, so mask features are resized
    once per level and stride-4 masks are never formed.
    """
    logits = mask_logits(jax.lax.stop_gradient(embeds), features)
    return (logits >= 0).reshape(*logits.shape[:3], -1)


def resized_features(features: ClipFeatures) -> list[Float[Array, "B T _ _ C"]]:
    """Returns the mask features resized to every level, without gradient."""
    fine = jax.lax.stop_gradient(features.mask_features)
    sizes = [(level.shape[2], level.shape[3]) for level in features.levels]
    return [resize(fine, size) for size in sizes]


def add_level(
    maps: Float[Array, "B T h w C"], level_embed: Float32[Array, "C"]
) -> Float[Array, "B T h w C"]:
    """Adds the level embedding, in the dtype of the maps."""
    return maps + level_embed.astype(maps.dtype).reshape(1, 1, 1, 1, -1)


class QueryTables(nn.Module):
    """Learned tables that both decoders start from."""

    queries: int
    dim: int
    levels: int

    @nn.compact
    def __call__(
        self,
    ) -> tuple[Float32[Array, "Q C"], Float32[Array, "Q C"], Float32[Array, "L C"]]:
        """Returns query features, query positions and level embeddings."""
        normal = nn.initializers.normal(1.0)
        return (
            self.param("query_feat", normal, (self.queries, self.dim)),
            self.param("query_embed", normal, (self.queries, self.dim)),
            self.param("level_embed", normal, (self.levels, self.dim)),
        )
