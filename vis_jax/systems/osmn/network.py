"""One-shot modulation network (OSMN): segments the object shown by two guides.

Yang et al., "Efficient Video Object Segmentation via Network Modulation", CVPR 2018,
with the VGG-16 trunks of the authors' code. Letters: N objects, G modulated channels,
S side of the visual guide, I images.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vis_jax.layers.conv import Conv
from vis_jax.layers.norm import BatchNorm
from vis_jax.ops.bilinear import fixed_weights
from vis_jax.settings import Count, section
from vis_jax.systems.osmn.vgg import (
    DEPTHS,
    STRIDE,
    VGG,
    WIDTHS,
    Modulation,
    VGGBlock,
    max_pool,
)
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32

_SMALL = nn.initializers.normal(1e-3)  # for all layers not pretrained on ImageNet
_HE = nn.initializers.he_normal()  # for both fully connected layers, if not pretrained
_MODULATED = slice(2, 5)  # blocks conv3, conv4, conv5
_DROPOUT = 0.5


@section
class Settings:
    """`model.osmn`; the defaults are the published size, two VGG-16 trunks."""

    widths: tuple[Count, ...] = WIDTHS  # channels per block of a trunk
    depths: tuple[Count, ...] = DEPTHS  # convolutions per block
    hidden: Count = 4096  # width of the fully connected layers
    side_width: Count = 16  # channels of the side outputs
    style: Literal["torch", "caffe"] = "torch"  # how pixels are scaled
    guide_side: Count = 224  # pixels, of the crop that shows the object

    def __post_init__(self) -> None:
        for name in ("widths", "depths"):
            if len(getattr(self, name)) != len(DEPTHS):
                raise ValueError(
                    f"{name}: expected {len(DEPTHS)} numbers, got {getattr(self, name)}"
                )
        if self.guide_side % STRIDE:
            raise ValueError(
                f"guide_side: expected a multiple of {STRIDE} pixels, got"
                f" {self.guide_side}"
            )


class Shared(NamedTuple):
    """Features independent of the guides: computed once for all objects of an image."""

    pooled: Float[Array, "I H/4 W/4 C"]  # input of block conv3
    logits: Float32[Array, "I H W"]  # contribution of the side output of block conv2


class VisualModulator(nn.Module):
    """Maps the crop of an object to one factor for each modulated channel.

    Attributes:
      hidden: width of the two hidden layers, `fc6` and `fc7`.
      outputs: modulated channels; factors are 1 at initialisation.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    hidden: int
    outputs: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, guides: Float32[Array, "N S S 3"], train: bool
    ) -> Float32[Array, "N G"]:
        x = VGG(self.widths, self.depths, self.dtype, name="trunk")(guides)
        side = x.shape[1]  # 7 for guides of 224 pixels
        fc6 = nn.Conv(
            self.hidden,
            (side, side),
            padding="VALID",
            kernel_init=_HE,
            dtype=self.dtype,
            name="fc6",
        )
        x = nn.relu(fc6(x)).reshape(x.shape[0], self.hidden)
        x = nn.Dropout(_DROPOUT, deterministic=not train)(x)
        fc7 = nn.Dense(self.hidden, kernel_init=_HE, dtype=self.dtype, name="fc7")
        x = nn.Dropout(_DROPOUT, deterministic=not train)(nn.relu(fc7(x)))
        fc8 = nn.Dense(
            self.outputs,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.ones,
            name="fc8",
        )
        return fc8(x.astype(jnp.float32))


class SpatialModulator(nn.Module):
    """Maps a heat map of the object's position to one shift for each modulated value.

    Everything is float32: the maps have one channel, so this is cheap.

    Attributes:
      channels: modulated channels of the blocks conv3, conv4, ..
    """

    channels: tuple[int, ...]

    @nn.compact
    def __call__(
        self, heat: Float32[Array, "N H W"], valid: Bool[Array, "N"], train: bool
    ) -> tuple[Float32[Array, "N _ _ _"], ...]:
        """Shifts for each block, at strides 4, 8, ..; none is negative.

        Args:
          heat: in [0, 1].
          valid: objects that count in batch norm statistics.
          train: batch norm uses this batch's statistics and updates the running ones.
        """
        x, shifts = _mean_pool(heat[..., None]), []
        for block, channels in enumerate(self.channels, 3):
            x = _mean_pool(x)
            y = Conv(channels, 1, kernel_init=_SMALL, name=f"conv{block}")(x)
            norm = BatchNorm(momentum=0.01, epsilon=1e-3, name=f"norm{block}")
            shifts.append(nn.relu(norm(y, train, valid)))
        return tuple(shifts)


class Fusion(nn.Module):
    """1x1 convolution of all upsampled side outputs to one logit, one part at a time.

    It is applied before upsampling: both are linear and act on different axes, so the
    result is the same and only one channel is upsampled. Only the bias is added
    afterwards, since upsampling fades at the border.
    """

    parts: int
    width: int

    def setup(self) -> None:
        shape = (self.parts, self.width)
        self.kernel = self.param("kernel", _SMALL, shape, jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, (1,), jnp.float32)

    def __call__(
        self, side: Float[Array, "N h w C"], part: int
    ) -> Float32[Array, "N h w"]:
        return side.astype(jnp.float32) @ self.kernel[part]


class SegmentationTrunk(nn.Module):
    """VGG-16 with modulated blocks conv3 to conv5 and four side outputs.

    Attributes:
      side_width: channels of a side output.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    side_width: int
    dtype: DTypeLike

    def setup(self) -> None:
        blocks = [
            VGGBlock(width, depth, self.dtype)
            for width, depth in zip(self.widths, self.depths, strict=True)
        ]
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = blocks
        sides = [
            Conv(
                self.side_width, 3, use_bias=True, kernel_init=_SMALL, dtype=self.dtype
            )
            for _ in range(4)
        ]
        self.side2, self.side3, self.side4, self.side5 = sides
        self.upscore_fuse = Fusion(4, self.side_width)

    def features(self, images: Float32[Array, "I H W 3"]) -> Shared:
        """Runs the blocks conv1 and conv2."""
        x = self.conv2(max_pool(self.conv1(images)))
        return Shared(max_pool(x), self._logits(self.side2(x), 0))

    def __call__(
        self, shared: Shared, modulations: list[Modulation]
    ) -> Float32[Array, "N H W"]:
        """Returns mask logits; image i has the objects i N / I to (i + 1) N / I - 1."""
        repeats = modulations[0].scale.shape[0] // shared.logits.shape[0]
        x, logits = (jnp.repeat(v, repeats, axis=0) for v in shared)
        blocks = (self.conv3, self.conv4, self.conv5)
        sides = (self.side3, self.side4, self.side5)
        for index, modulation in enumerate(modulations):
            x = blocks[index](max_pool(x) if index else x, modulation)
            logits += self._logits(sides[index](x), index + 1)
        return logits + self.upscore_fuse.bias.reshape(1, 1, 1)

    def _logits(
        self, side: Float[Array, "N h w C"], part: int
    ) -> Float32[Array, "N H W"]:
        """Returns one side output's logits, upsampled from stride 2^(part + 1)."""
        return upsample(self.upscore_fuse(side, part), 2 ** (part + 1))


class OSMN(nn.Module):
    """The OSMN network; see its three methods, and `init` for the shapes it needs.

    Attributes:
      widths, depths: channels and convolutions of the five blocks of both trunks.
      hidden: width of the visual modulator's hidden layers.
      side_width: channels of a side output.
      style: pixel normalisation, see `backbones.normalize`. Deviation: 'caffe'
        subtracts 103.53, 116.28, 123.675, the authors 104, 117, 123.
    """

    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    hidden: int = 4096
    side_width: int = 16
    style: str = "torch"
    dtype: DTypeLike = jnp.float32

    @property
    def channels(self) -> tuple[int, ...]:
        """Modulated channels of each block."""
        pairs = zip(self.widths[_MODULATED], self.depths[_MODULATED], strict=True)
        return tuple(width * depth for width, depth in pairs)

    def setup(self) -> None:
        _check_blocks(widths=self.widths, depths=self.depths)
        trunk = (self.widths, self.depths)
        self.modulator = VisualModulator(
            *trunk, self.hidden, sum(self.channels), self.dtype
        )
        self.modulator_sp = SpatialModulator(self.channels)
        self.seg = SegmentationTrunk(*trunk, self.side_width, self.dtype)

    def modulate(
        self, guides: Float32[Array, "N S S 3"], train: bool = False
    ) -> Float32[Array, "N G"]:
        """Returns the factors of the modulated channels.

        Args:
          guides: see `guides.visual_guide`; S = 224 in the published network.
          train: enables dropout.
        """
        _check_sides("guide", guides.shape[1:3], STRIDE)
        return self.modulator(guides, train)

    def features(self, images: Float32[Array, "I H W 3"]) -> Shared:
        """Returns features shared by all objects of an image.

        Args:
          images: normalised; height and width are multiples of 16 pixels.
        """
        _check_sides("canvas", images.shape[1:3], STRIDE // 2)
        return self.seg.features(images)

    def segment(
        self,
        shared: Shared,
        gamma: Float32[Array, "N G"],
        heat: Float32[Array, "N H W"],
        *,
        valid: Bool[Array, "N"] | None = None,
        train: bool = False,
    ) -> Float32[Array, "N H W"]:
        """Returns mask logits of objects.

        Args:
          shared: features of I images with N / I objects each.
          gamma: from `modulate`.
          heat: see `guides.spatial_guide`.
          valid, train: see `SpatialModulator`.
        """
        count = gamma.shape[0]
        valid = jnp.ones((count,), bool) if valid is None else valid
        shifts = self.modulator_sp(heat, valid, train)
        ends = np.cumsum(self.channels)
        modulations = [
            Modulation(
                gamma[:, end - shift.shape[-1] : end].reshape(count, depth, -1), shift
            )
            for end, shift, depth in zip(
                ends, shifts, self.depths[_MODULATED], strict=True
            )
        ]
        return self.seg(shared, modulations)

    def __call__(
        self,
        guides: Float32[Array, "N S S 3"],
        images: Float32[Array, "I H W 3"],
        heat: Float32[Array, "N H W"],
        *,
        valid: Bool[Array, "N"],
        train: bool,
        train_norm: bool,
    ) -> Float32[Array, "N H W"]:
        """Runs all three methods; for training and `init`."""
        gamma, shared = self.modulate(guides, train), self.features(images)
        return self.segment(shared, gamma, heat, valid=valid, train=train_norm)


def upsample(x: Float32[Array, "N h w"], factor: int) -> Float32[Array, "N H W"]:
    """Upsamples bilinearly with half-pixel centres; fades to half at the border.

    Equals the transposed convolution with a fixed kernel of twice the stride, cropped
    at its centre, in the authors' code.
    """
    rows, columns = (jnp.asarray(_weights(n, factor)) for n in x.shape[1:])
    return jnp.einsum("yi,nij,xj->nyx", rows, x, columns)


def _weights(length: int, factor: int) -> np.ndarray:
    """Returns float32 [length * factor, length], weights of inputs per output."""
    at = (np.arange(length * factor) + 0.5) / factor - 0.5
    return fixed_weights(at, length).astype(np.float32)


def _mean_pool(x: Float32[Array, "N H W C"]) -> Float32[Array, "N h w C"]:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _check_blocks(**fields: tuple[int, ...]) -> None:
    """Raises ValueError unless each field has one number per block."""
    for name, value in fields.items():
        if len(value) != len(WIDTHS):
            raise ValueError(
                f"osmn.{name}: expected {len(WIDTHS)} numbers, got {tuple(value)}"
            )


def _check_sides(name: str, sides: tuple[int, ...], stride: int) -> None:
    """Raises ValueError unless both sides are multiples of the stride."""
    if any(side % stride for side in sides):
        raise ValueError(
            f"{name}: expected height and width in multiples of {stride} pixels,"
            f" got {sides[0]} x {sides[1]}"
        )
