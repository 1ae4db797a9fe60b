"""Enriches features of a frame by deformable sampling of nearby frames.

Bertasius, Torresani and Shi, "Object Detection in Video with Spatiotemporal Sampling
Networks", ECCV 2018 (STSN), used in MaskProp's largest backbone. Neither paper is
complete; the wiring follows the published description as far as it goes. Deviations:
ReLU after the first three deformable convolutions and inside the similarity network,
whose layers are as wide as the features; and a gate that starts at 0, so that an image
detector's output is unchanged at first.

Letters: S frames beside the centre, C channels, D embedding channels.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import MSRA, Conv
from vis_jax.layers.deform import centre_tap
from vis_jax.ops.deform_conv import deform_conv
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32

_SIDE = 3  # kernel side


class TemporalSampling(nn.Module):
    """Four deformable convolutions from frame to frame, weighted by similarity.

    Offsets are predicted from both frames through three deformable convolutions; the
    fourth samples the other frame. Its outputs are averaged over all frames, including
    the centre, weighted by the similarity of their embedding to the centre's.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        centre: Float[Array, "h w C"],
        support: Float[Array, "S h w C"],
        valid: Bool[Array, "S"],
    ) -> Float[Array, "h w C"]:
        """Returns the enriched features of the centre frame.

        Args:
          centre: features of the frame.
          support: features of nearby frames. At the ends of a video the source repeats
            the first or last frame in place of missing ones.
          valid: False marks frames to ignore.
        """
        channels = centre.shape[-1]
        centre, support = centre.astype(self.dtype), support.astype(self.dtype)
        frames = jnp.concatenate([centre[None], support])
        x = jnp.concatenate([jnp.broadcast_to(centre[None], frames.shape), frames], -1)
        for number in (1, 2, 3):
            offsets = self._offsets(x, number)
            x = jax.nn.relu(self._sample(x, offsets, number, MSRA, channels))
        offsets = self._offsets(x, 4)
        sampled = self._sample(frames, offsets, 4, centre_tap, channels)
        embeds = self._embed(sampled)
        usable = jnp.concatenate([jnp.ones(1, bool), valid])
        weights = similarity_weights(embeds.astype(jnp.float32), usable)
        found = (weights[..., None].astype(self.dtype) * sampled).sum(axis=0)
        gate = self.param("gate", nn.initializers.zeros, (), jnp.float32)
        return centre + jnp.asarray(gate, self.dtype) * (found - centre)

    def _offsets(
        self, x: Float[Array, "N h w C"], number: int
    ) -> Float32[Array, "N h w 1 k k 2"]:
        """Predicts y, x of each tap, initially 0."""
        conv = Conv(
            2 * _SIDE * _SIDE,
            _SIDE,
            use_bias=True,
            kernel_init=nn.initializers.zeros,
            name=f"offset{number}",
        )
        return conv(x).reshape(*x.shape[:3], 1, _SIDE, _SIDE, 2)

    def _sample(
        self,
        x: Float[Array, "N h w C"],
        offsets: Float32[Array, "N h w 1 k k 2"],
        number: int,
        init: Callable[..., Array],
        features: int,
    ) -> Float[Array, "N h w D"]:
        """Applies a deformable convolution without bias."""
        shape = (_SIDE, _SIDE, x.shape[-1], features)
        kernel = self.param(f"kernel{number}", init, shape, jnp.float32)
        kernel = jnp.asarray(kernel, self.dtype)

        def one(x: Array, offsets: Array) -> Array:
            return deform_conv(
                x, kernel, offsets, modulation=None, stride=1, padding=1, dilation=1
            )

        return jax.vmap(one)(x, offsets)

    def _embed(self, x: Float[Array, "N h w C"]) -> Float[Array, "N h w D"]:
        """Applies the similarity network."""
        for number, side in enumerate((1, 3, 1), start=1):
            conv = Conv(
                x.shape[-1],
                side,
                use_bias=True,
                dtype=self.dtype,
                name=f"similarity{number}",
            )
            x = conv(x)
            x = jax.nn.relu(x) if number < 3 else x
        return x


def similarity_weights(
    embeds: Float32[Array, "S h w D"], valid: Bool[Array, "S"]
) -> Float32[Array, "S h w"]:
    """Returns the softmax over frames of each cell's cosine similarity to frame 0.

    Args:
      embeds: embeddings of the frames, the centre first.
      valid: frames that take part, including the centre.
    """
    square = jnp.square(embeds).sum(axis=-1, keepdims=True)
    embeds = embeds * jax.lax.rsqrt(square + 1e-12)
    cosine = (embeds[:1] * embeds).sum(axis=-1)
    cosine = jnp.where(valid[:, None, None], cosine, -jnp.inf)
    return jax.nn.softmax(cosine, axis=0)
