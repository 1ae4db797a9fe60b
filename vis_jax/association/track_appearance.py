"""Appearance features of detections and whole frames, for the tracks of RGNNVIS.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.4 and, for the positions, Eq. 10. Letters: T frames, N detections, A
appearance channels, half of them from each of two backbone maps.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.graph import Residual
from vis_jax.layers.mlp import torch_uniform
from vis_jax.ops.masks import mask_pool
from vis_jax.ops.pos_embed import sine_2d
from vis_jax.typing import Array, Bool, Float, Float32

STAGES = ("res4", "res5")  # backbone maps used for appearance
INSIDE_BOX = 10.0  # added to the mask logits within the box, as in the released code
_BACKGROUND = 10.0  # logit of the background


class Masks(NamedTuple):
    """Masks of the detections of frames, and the interiors of their boxes."""

    logits: Float32[Array, "T N h w"]  # over the canvas; positive = inside
    inside: Bool[Array, "T N h w"]  # pixels within the box
    valid: Bool[Array, "T N"]


class PooledFeatures(NamedTuple):
    """Features of one map pooled under masks, before any trained layer.

    P is the length of position embeddings, or 0.
    """

    appearance: Float32[Array, "T N C"]  # weighted sums
    weights: Float32[Array, "T N"]  # sums of the weights, close to 1
    places: Float32[Array, "T N P"]  # weighted sums of position embeddings
    mean: Float32[Array, "T C"]  # over the map
    mean_place: Float32[Array, "T P"]


class FrameAppearance(NamedTuple):
    """Appearance features of some frames."""

    appearance: Float32[Array, "T N A"]
    background: Float32[Array, "T A"]  # appearance of the frame as a whole


def pool(
    features: dict[str, Float[Array, "T _ _ _"]], masks: Masks, positions: int
) -> dict[str, PooledFeatures]:
    """Pools the features that `AppearanceEncoder` uses.

    Projection commutes with averaging, so the maps are pooled first, which is much
    cheaper.

    Args:
      features: features of the backbone, including `STAGES`.
      masks: see the type.
      positions: length of position embeddings; 0 for none.
    """
    logits = masks.logits + INSIDE_BOX * masks.inside.astype(jnp.float32)

    def one(x: Float[Array, "T h w C"]) -> PooledFeatures:
        frames, height, width, channels = x.shape
        place = jnp.zeros((height, width, 0), jnp.float32)
        if positions:
            place = sine_2d(height, width, positions)
        places = jnp.broadcast_to(place[None], (frames, *place.shape))
        ones = jnp.ones((frames, height, width, 1), jnp.float32)
        maps = jnp.concatenate([x.astype(jnp.float32), ones, places], axis=-1)

        def under(maps: Array, logits: Array, valid: Array) -> Array:
            return mask_pool(maps, logits, valid, background=_BACKGROUND)

        found = jax.vmap(under)(maps, logits, masks.valid)
        mean = maps.mean(axis=(1, 2))
        return PooledFeatures(
            found[..., :channels],
            found[..., channels],
            found[..., channels + 1 :],
            mean[:, :channels],
            mean[:, channels + 1 :],
        )

    return {name: one(features[name]) for name in STAGES}


class Projection(nn.Module):
    """A linear layer for weighted sums; the bias is scaled by the sum of weights."""

    features: int

    @nn.compact
    def __call__(
        self, x: Float32[Array, "*lead C"], weight: Float32[Array, "*lead"]
    ) -> Float32[Array, "*lead D"]:
        """Returns the projection.

        Args:
          x: weighted sums.
          weight: sum of the weights.
        """
        init, shape = torch_uniform(x.shape[-1]), (self.features,)
        kernel = self.param("kernel", init, (x.shape[-1], *shape), jnp.float32)
        bias = self.param("bias", init, shape, jnp.float32)
        return x @ kernel + weight[..., None] * bias.reshape(*(1,) * (x.ndim - 1), -1)


class AppearanceEncoder(nn.Module):
    """Appearance of detections, from features under their masks.

    Attributes:
      width: A.
      narrow: bottleneck channels of the residual.
      describe_background: apply the residual to the frame's features, too, as in the
        paper; not in the released code.
    """

    width: int
    narrow: int
    describe_background: bool

    def setup(self) -> None:
        self.projections = {name: Projection(self.width // 2) for name in STAGES}
        self.residual = Residual(self.narrow, 3)

    def __call__(
        self, pooled: dict[str, PooledFeatures], valid: Bool[Array, "T N"]
    ) -> FrameAppearance:
        """Returns the appearance features of frames.

        Args:
          pooled: pooled features of each map.
          valid: existing detections; all others get zeros.
        """
        appearance, means = [], []
        for name in STAGES:
            project, part = self.projections[name], pooled[name]
            projected = project(part.appearance, part.weights)
            mean = project(part.mean, jnp.ones(part.mean.shape[:1], jnp.float32))
            if part.places.shape[-1]:
                projected, mean = projected + part.places, mean + part.mean_place
            appearance.append(projected)
            means.append(mean)
        background = jnp.concatenate(means, axis=-1)
        if self.describe_background:
            background = self.residual(background)
        found = self.residual(jnp.concatenate(appearance, axis=-1))
        return FrameAppearance(jnp.where(valid[..., None], found, 0.0), background)
