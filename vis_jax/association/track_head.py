"""Tracking head of MaskTrack R-CNN: an embedding per region of interest.

Yang et al., "Video Instance Segmentation", ICCV 2019. `ops.assignment.match_logits`
compares two sets of embeddings. Letters: R regions, S side of their features.
"""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.settings import Count, Natural, Range, section
from vis_jax.typing import Array, DTypeLike, Float, Float32

_NORMAL = nn.initializers.normal(0.01)


@section
class Settings:
    """`model.track_head`."""

    width: Count = 1024  # size of the embedding
    # IoU with its object above which a region trains the head; 0.5 in the released
    # code, 0.7 in the text. Regions below 0.5 are of no use to any head.
    positive: Annotated[float, Range(least=0.5, most=1)] = 0.5


@section
class OptionalSettings(Settings):
    """`model.track_head` of detectors for which it is optional."""

    width: Natural = 0  # size of the embedding; 0 = no track head


class TrackHead(nn.Module):
    """Two layers with a ReLU in between and, as in the released code, none after.

    Attributes:
      width: width of both layers; 1024 in the paper.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "*lead R S S C"]
    ) -> Float32[Array, "*lead R E"]:
        """Returns embeddings, compared by dot product."""
        # The kernel keeps the feature axes, [S, S, C, width].
        x = nn.DenseGeneral(
            self.width,
            axis=(-3, -2, -1),
            kernel_init=_NORMAL,
            dtype=self.dtype,
            name="fc1",
        )(pooled)
        x = nn.Dense(self.width, kernel_init=_NORMAL, dtype=self.dtype, name="fc2")(
            nn.relu(x)
        )
        return x.astype(jnp.float32)
