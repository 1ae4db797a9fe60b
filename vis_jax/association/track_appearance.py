"""Appearance of detections and of whole frames, for the tracks of RGNNVIS.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.4 and, for the positions, Eq. 10. Letters: T frames, N detections, A
numbers of a description, half of them from each of two maps of the backbone.
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

STAGES = ("res4", "res5")  # maps of the backbone that are described
INSIDE_BOX = 10.0  # added to the mask logits within the box, as in the released code
_BACKGROUND = 10.0  # logit of what belongs to no detection


class Masks(NamedTuple):
    """Masks of the detections of frames, and the insides of their boxes."""

    logits: Float32[Array, "T N h w"]  # over the canvas; positive = inside
    inside: Bool[Array, "T N h w"]  # pixels within the box
    valid: Bool[Array, "T N"]


class Pooled(NamedTuple):
    """Features of one map under masks, before anything that is trained.

    P is the length of a position embedding, or 0.
    """

    looks: Float32[Array, "T N C"]  # weighted sums
    weights: Float32[Array, "T N"]  # sums of the weights, all but 1
    places: Float32[Array, "T N P"]  # weighted sums of position embeddings
    mean: Float32[Array, "T C"]  # over the map
    mean_place: Float32[Array, "T P"]


class Described(NamedTuple):
    """Descriptions of some frames."""

    looks: Float32[Array, "T N A"]
    background: Float32[Array, "T A"]  # of the frame as a whole


def pool(
    features: dict[str, Float[Array, "T _ _ _"]], masks: Masks, positions: int
) -> dict[str, Pooled]:
    """Pools the features that `Appearance` describes.

    The mean of a projected map is the projection of the mean, which has far fewer
    numbers: so the maps are pooled first.

    Args:
      features: of the backbone, those of `STAGES` among them.
      masks: see the type.
      positions: length of a position embedding; 0: none.
    """
    logits = masks.logits + INSIDE_BOX * masks.inside.astype(jnp.float32)

    def one(x: Float[Array, "T h w C"]) -> Pooled:
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
        return Pooled(
            found[..., :channels],
            found[..., channels],
            found[..., channels + 1 :],
            mean[:, :channels],
            mean[:, channels + 1 :],
        )

    return {name: one(features[name]) for name in STAGES}


class Projection(nn.Module):
    """A linear layer for weighted sums: the bias counts by the sum of the weights."""

    features: int

    @nn.compact
    def __call__(
        self, x: Float32[Array, "*lead C"], weight: Float32[Array, "*lead"]
    ) -> Float32[Array, "*lead D"]:
        """The projection.

        Args:
          x: weighted sums.
          weight: sum of the weights.
        """
        init, shape = torch_uniform(x.shape[-1]), (self.features,)
        kernel = self.param("kernel", init, (x.shape[-1], *shape), jnp.float32)
        bias = self.param("bias", init, shape, jnp.float32)
        return x @ kernel + weight[..., None] * bias.reshape(*(1,) * (x.ndim - 1), -1)


class Appearance(nn.Module):
    """Describes detections by features under their masks.

    Attributes:
      width: A.
      narrow: channels in the middle of the residual.
      describe_background: whether the description of the frame goes through the
        residual, too, as in the paper; in the released code it does not.
    """

    width: int
    narrow: int
    describe_background: bool

    def setup(self) -> None:
        self.projections = {name: Projection(self.width // 2) for name in STAGES}
        self.residual = Residual(self.narrow, 3)

    def __call__(
        self, pooled: dict[str, Pooled], valid: Bool[Array, "T N"]
    ) -> Described:
        """Describes frames.

        Args:
          pooled: of each map.
          valid: detections that there are; all others have zeros.
        """
        looks, means = [], []
        for name in STAGES:
            project, part = self.projections[name], pooled[name]
            own = project(part.looks, part.weights)
            mean = project(part.mean, jnp.ones(part.mean.shape[:1], jnp.float32))
            if part.places.shape[-1]:
                own, mean = own + part.places, mean + part.mean_place
            looks.append(own)
            means.append(mean)
        background = jnp.concatenate(means, axis=-1)
        if self.describe_background:
            background = self.residual(background)
        found = self.residual(jnp.concatenate(looks, axis=-1))
        return Described(jnp.where(valid[..., None], found, 0.0), background)
