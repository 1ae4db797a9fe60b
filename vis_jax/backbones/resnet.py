"""ResNet in the layout of detectron2: images to maps of strides 4, 8, 16, 32.

He et al., "Deep residual learning for image recognition", CVPR 2016; with groups, Xie
et al., "Aggregated residual transformations for deep neural networks", CVPR 2017.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.layers.deform_conv import DeformConv
from vis_jax.settings import OneOf, Range, section
from vis_jax.typing import Array, Bool, DTypeLike, Float

Valid = Bool[Array, "N"] | None  # images that count in batch norm statistics


class Variant(NamedTuple):
    """Blocks per stage, channels of the first stage, block type.

    Attributes:
      groups: groups of the 3x3 convolutions.
      group_width: channels per group in the first stage, for a `width` of 64.
    """

    stage_sizes: tuple[int, ...]
    width: int
    block: str
    groups: int = 1
    group_width: int = 64


VARIANTS = {
    "thin": Variant((1, 1, 1, 1), 16, "basic"),
    "18": Variant((2, 2, 2, 2), 64, "basic"),
    "34": Variant((3, 4, 6, 3), 64, "basic"),
    "50": Variant((3, 4, 6, 3), 64, "bottleneck"),
    "101": Variant((3, 4, 23, 3), 64, "bottleneck"),
    "152": Variant((3, 8, 36, 3), 64, "bottleneck"),
    "x101_64x4d": Variant((3, 4, 23, 3), 64, "bottleneck", groups=64, group_width=4),
}


@section
class Settings:
    """`model.backbone` of a ResNet."""

    name: Literal["resnet"] = "resnet"  # or swin, with fields of its own
    # Depth; thin trains on a CPU; x101_64x4d is a ResNeXt: 64 groups of 4 channels.
    variant: Annotated[str, OneOf(VARIANTS)] = "50"
    # frozen_batch for pretrained weights; frozen_stats also trains scale and bias;
    # batch also updates the statistics, over all devices; group for training from
    # scratch.
    norm: Literal["frozen_batch", "frozen_stats", "batch", "group"] = "frozen_batch"
    # Origin of the weights: determines stride position and pixel scaling.
    style: Literal["torch", "caffe"] = "torch"
    remat: bool = False  # recompute blocks in the backward pass: less memory
    # Stages, 3 .. 5 in detectors, whose 3x3 convolutions (the second, of two) are
    # deformable.
    deform_stages: tuple[Annotated[int, Range(least=2, most=5)], ...] = ()
    deform_modulated: bool = False  # modulated, as in version 2

    def __post_init__(self) -> None:
        if self.deform_modulated and not self.deform_stages:
            raise ValueError(
                "deform_modulated: expected False without deform_stages, got True"
            )


class Block(nn.Module):
    """Base class of the blocks of a stage.

    Attributes:
      width: channels; for bottlenecks a quarter of the output's.
      inner: channels of a bottleneck's 3x3 convolution.
      groups: groups of that convolution.
      deform: None, or whether the deformable convolution is modulated.
    """

    width: int
    inner: int
    stride: int
    groups: int
    deform: bool | None
    norm: str
    style: str
    dtype: DTypeLike

    def _second(self, features: int, stride: int) -> nn.Module:
        """Returns the convolution that may be deformable."""
        kind: Callable[..., nn.Module] = functools.partial(Conv, kernel=3)
        if self.deform is not None:
            kind = functools.partial(DeformConv, modulated=self.deform)
        return kind(
            features=features,
            stride=stride,
            norm=self.norm,
            groups=self.groups,
            dtype=self.dtype,
            name="conv2",
        )


class Basic(Block):
    """Two 3x3 convolutions and a shortcut."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool, valid: Valid
    ) -> Float[Array, "N h w D"]:
        conv = functools.partial(Conv, norm=self.norm, dtype=self.dtype)
        y = conv(self.width, 3, self.stride, name="conv1")(x, train, valid)
        y = self._second(self.width, 1)(nn.relu(y), train, valid)
        if x.shape != y.shape:
            x = conv(self.width, 1, self.stride, name="shortcut")(x, train, valid)
        return nn.relu(x + y)


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times `width` channels.

    The stride is in the 3x3 convolution; with style 'caffe' in the first 1x1.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool, valid: Valid
    ) -> Float[Array, "N h w D"]:
        conv = functools.partial(Conv, norm=self.norm, dtype=self.dtype)
        first, second = self.stride, 1
        if self.style == "torch":
            first, second = second, first
        y = conv(self.inner, 1, first, name="conv1")(x, train, valid)
        y = self._second(self.inner, second)(nn.relu(y), train, valid)
        y = conv(4 * self.width, 1, name="conv3")(nn.relu(y), train, valid)
        if x.shape != y.shape:
            x = conv(4 * self.width, 1, self.stride, name="shortcut")(x, train, valid)
        return nn.relu(x + y)


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, each of stride 2."""

    width: int
    norm: str
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W 3"], train: bool, valid: Valid
    ) -> Float[Array, "N h w D"]:
        conv = Conv(self.width, 7, 2, self.norm, dtype=self.dtype, name="conv1")
        return _max_pool(nn.relu(conv(x, train, valid)))


class ResNet(nn.Module):
    """Stages 'res2' to 'res5' of a ResNet, after their last ReLU.

    Attributes:
      variant, norm, style, remat, deform_stages, deform_modulated: see `Settings`,
        `Bottleneck` and `normalize`.
    """

    variant: str
    norm: str = "frozen_batch"
    style: str = "torch"
    remat: bool = False
    deform_stages: tuple[int, ...] = ()
    deform_modulated: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "N H W 3"], train: bool = False, valid: Valid = None
    ) -> dict[str, Float[Array, "N _ _ _"]]:
        """Returns features by name.

        Args:
          images: normalised, of any size; stages round up, as in PyTorch.
          train, valid: see `BatchNorm`; ignored by other norms.
        """
        variant = VARIANTS[self.variant]
        kind = {"basic": Basic, "bottleneck": Bottleneck}[variant.block]
        kind = nn.remat(kind, static_argnums=2) if self.remat else kind
        stem = Stem(variant.width, self.norm, self.dtype, name="stem")
        x = stem(images, train, valid)
        features = {}
        for stage, blocks in enumerate(variant.stage_sizes, 2):
            width = variant.width * 2 ** (stage - 2)
            for index in range(blocks):
                x = kind(
                    width=width,
                    inner=width * variant.group_width // 64 * variant.groups,
                    stride=2 if stage > 2 and index == 0 else 1,
                    groups=variant.groups,
                    deform=self.deform_modulated
                    if stage in self.deform_stages
                    else None,
                    norm=self.norm,
                    style=self.style,
                    dtype=self.dtype,
                    name=f"res{stage}_{index}",
                )(x, train, valid)
            features[f"res{stage}"] = x
        return features


def _max_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
    """Applies 3 x 3 max pooling of stride 2 to a non-negative map.

    Uses three shifted slices per axis: the gradient of a windowed reduction takes six
    times as long on CPUs. Zero padding never wins, as nothing is negative.
    """
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = [x[:, start : start + height : 2] for start in range(3)]
    x = jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
    columns = [x[:, :, start : start + width : 2] for start in range(3)]
    return jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])
