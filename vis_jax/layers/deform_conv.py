"""Deformable convolution layer that predicts its own offsets."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import MSRA, Conv, normalised
from vis_jax.ops.deform_conv import deform_conv
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32

_SIDE = 3  # kernel side
_TAPS = _SIDE * _SIDE


class DeformConv(nn.Module):
    """3x3 deformable convolution without bias, then normalisation.

    Dai et al., "Deformable convolutional networks", ICCV 2017; modulated: Zhu et al.,
    "Deformable ConvNets v2", CVPR 2019. A convolution of the same input, 'offset',
    predicts y, x of tap 0, y, x of tap 1, ..; then the modulation logits, if any. It is
    initialised to zero offsets.

    Offsets and positions are float32.

    Attributes:
      features: output channels.
      norm: a key of `layers.conv.NORMS`.
      groups: groups of the convolution; all share the offsets.
      modulated: every sample also has a weight in [0, 1], initially one half.
    """

    features: int
    stride: int
    norm: str
    groups: int = 1
    modulated: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        valid: Bool[Array, "N"] | None = None,
    ) -> Float[Array, "N h w D"]:
        """Convolves images; `train` and `valid` only affect `BatchNorm`."""
        shape = (_SIDE, _SIDE, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", MSRA, shape, jnp.float32)
        x = x.astype(self.dtype)
        predicted = Conv(
            (3 if self.modulated else 2) * _TAPS,
            _SIDE,
            self.stride,
            use_bias=True,
            kernel_init=nn.initializers.zeros,
            name="offset",
        )(x)
        offsets = predicted[..., : 2 * _TAPS]
        offsets = offsets.reshape(*predicted.shape[:3], 1, _SIDE, _SIDE, 2)
        weights = None
        if self.modulated:
            weights = jax.nn.sigmoid(predicted[..., 2 * _TAPS :])
            weights = weights.reshape(*predicted.shape[:3], 1, _SIDE, _SIDE)
        x = self._read(x, jnp.asarray(kernel, self.dtype), offsets, weights)
        return normalised(x, self.norm, train, valid)

    def _read(
        self,
        x: Float[Array, "N H W C"],
        kernel: Float[Array, "k k c D"],
        offsets: Float32[Array, "N h w 1 k k 2"],
        modulation: Float32[Array, "N h w 1 k k"] | None,
    ) -> Float[Array, "N h w D"]:
        one = functools.partial(
            deform_conv, stride=self.stride, padding=_SIDE // 2, dilation=1
        )

        def image(x: Array, offsets: Array, modulation: Array | None) -> Array:
            return one(x, kernel, offsets, modulation=modulation)

        return jax.vmap(image)(x, offsets, modulation)
