"""Masks of RGNNVIS tracks: detection masks, reweighted by the tracks.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.6 and table 8. Letters: M tracks, D embedding channels.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vis_jax.association.track_appearance import INSIDE_BOX
from vis_jax.layers.conv import Conv
from vis_jax.layers.mlp import linear, torch_uniform
from vis_jax.settings import Count, Range, section
from vis_jax.typing import Array, Bool, Float32

ABSENT = -20.0  # mask logit of tracks absent from the frame


@section
class Settings:
    """`model.masks`."""

    # False: the detection's logits, with a bonus inside its box, as used for feature
    # pooling; no parameters.
    reweight: bool = True
    channels: Count = 16  # channels of the embedding and the hidden map
    # Mask logit that a track must exceed to win a pixel; 10 in the released code.
    background: Annotated[float, Range()] = 0.0


class MaskReweighting(nn.Module):
    """Two convolutions over each track's mask, box and embedding.

    The embedding channels are constant over the map. Their contribution depends only on
    how many taps of the first kernel lie on the map, so they are not expanded to maps.

    Attributes:
      channels: see `Settings`.
    """

    channels: int

    @nn.compact
    def __call__(
        self,
        logits: Float32[Array, "M h w"],
        inside: Bool[Array, "M h w"],
        embeds: Float32[Array, "M D"],
        active: Bool[Array, "M"],
    ) -> Float32[Array, "M h w"]:
        """Returns the mask logits of tracks.

        Args:
          logits, inside: mask and box of each active track's detection.
          embeds: embeddings of the tracks, after the frame.
          active: tracks in the frame; all others get `ABSENT`.
        """
        is_active = active[:, None, None]
        maps = [
            jnp.where(is_active, x, ABSENT)
            for x in (logits, inside.astype(jnp.float32))
        ]
        embeds = nn.relu(linear(embeds, self.channels, "embedding"))
        x = _First(self.channels, name="conv1")(jnp.stack(maps, axis=-1), embeds)
        init = torch_uniform(9 * self.channels)
        conv = Conv(1, 3, use_bias=True, kernel_init=init, bias_init=init, name="conv2")
        return jnp.where(is_active, conv(nn.relu(x))[..., 0], ABSENT)


class _First(nn.Module):
    """A 3 x 3 convolution of maps and constants, with zero padding."""

    features: int

    @nn.compact
    def __call__(
        self, maps: Float32[Array, "M h w C"], constants: Float32[Array, "M E"]
    ) -> Float32[Array, "M h w D"]:
        count = maps.shape[-1]
        channels = count + constants.shape[-1]
        init, shape = torch_uniform(9 * channels), (self.features,)
        kernel = self.param("kernel", init, (3, 3, channels, *shape), jnp.float32)
        bias = self.param("bias", init, shape, jnp.float32)
        conv = Conv(self.features, 3, parent=None)
        own: Any = conv.apply({"params": {"kernel": kernel[:, :, :count]}}, maps)
        taps = jnp.einsum("yxed,me->myxd", kernel[:, :, count:], constants)
        rows, columns = map(_taps, maps.shape[1:3])
        own += jnp.einsum("hy,wx,myxd->mhwd", rows, columns, taps)
        return own + bias.reshape(1, 1, 1, -1)


def _taps(length: int) -> Float32[np.ndarray, "{length} 3"]:
    """Returns which taps of a 3-tap kernel lie on an axis, at each position."""
    found = np.ones((length, 3), np.float32)
    found[0, 0] = found[-1, 2] = 0.0
    return found


def detection_masks(
    logits: Float32[Array, "M h w"],
    inside: Bool[Array, "M h w"],
    active: Bool[Array, "M"],
) -> Float32[Array, "M h w"]:
    """Returns the mask logits of tracks without reweighting."""
    masks = logits + INSIDE_BOX * inside.astype(jnp.float32)
    return jnp.where(active[:, None, None], masks, ABSENT)
