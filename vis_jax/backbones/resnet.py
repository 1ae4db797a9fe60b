"""ResNet in the layout of detectron2: images to maps of strides 4, 8, 16, 32.

He et al., "Deep residual learning for image recognition", CVPR 2016.
"""

import functools
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.settings import OneOf, section
from vis_jax.typing import Array, Bool, DTypeLike, Float

Valid = Bool[Array, "N"] | None  # images that count in the statistics of batch norm


class Variant(NamedTuple):
    """Blocks of each stage, channels of the first stage, kind of block."""

    stage_sizes: tuple[int, ...]
    width: int
    block: str


VARIANTS = {
    "thin": Variant((1, 1, 1, 1), 16, "basic"),
    "18": Variant((2, 2, 2, 2), 64, "basic"),
    "34": Variant((3, 4, 6, 3), 64, "basic"),
    "50": Variant((3, 4, 6, 3), 64, "bottleneck"),
    "101": Variant((3, 4, 23, 3), 64, "bottleneck"),
    "152": Variant((3, 8, 36, 3), 64, "bottleneck"),
}


@section
class Settings:
    """`model.backbone` of a ResNet."""

    name: Literal["resnet"] = "resnet"  # or swin, with fields of its own
    variant: Annotated[str, OneOf(VARIANTS)] = "50"  # depth; thin trains on a CPU
    # frozen_batch for pretrained weights, frozen_stats to train its scale and bias,
    # batch to use and keep the statistics of the batch as well, over all devices;
    # group to train from scratch.
    norm: Literal["frozen_batch", "frozen_stats", "batch", "group"] = "frozen_batch"
    # Where the weights come from: where the stride sits, and how pixels are scaled.
    style: Literal["torch", "caffe"] = "torch"
    remat: bool = False  # recompute blocks in the backward pass: less memory


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    width: int
    stride: int
    norm: str
    style: str
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool, valid: Valid
    ) -> Float[Array, "N h w D"]:
        conv = functools.partial(Conv, norm=self.norm, dtype=self.dtype)
        y = conv(self.width, 3, self.stride, name="conv1")(x, train, valid)
        y = conv(self.width, 3, name="conv2")(nn.relu(y), train, valid)
        if x.shape != y.shape:
            x = conv(self.width, 1, self.stride, name="shortcut")(x, train, valid)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times `width` channels.

    The stride sits in the 3x3 convolution, with style 'caffe' in the first 1x1.
    """

    width: int
    stride: int
    norm: str
    style: str
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool, valid: Valid
    ) -> Float[Array, "N h w D"]:
        conv = functools.partial(Conv, norm=self.norm, dtype=self.dtype)
        first, second = self.stride, 1
        if self.style == "torch":
            first, second = second, first
        y = conv(self.width, 1, first, name="conv1")(x, train, valid)
        y = conv(self.width, 3, second, name="conv2")(nn.relu(y), train, valid)
        y = conv(4 * self.width, 1, name="conv3")(nn.relu(y), train, valid)
        if x.shape != y.shape:
            x = conv(4 * self.width, 1, self.stride, name="shortcut")(x, train, valid)
        return nn.relu(x + y)


class Stem(nn.Module):
    """7x7 convolution and 3x3 maximum, each of stride 2."""

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
      variant, norm, style, remat: see `Settings`, `Bottleneck` and `normalize`.
    """

    variant: str
    norm: str = "frozen_batch"
    style: str = "torch"
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "N H W 3"], train: bool = False, valid: Valid = None
    ) -> dict[str, Float[Array, "N _ _ _"]]:
        """Features by name.

        Args:
          images: normalised; height and width are multiples of 32 pixels.
          train, valid: see `BatchNorm`; other norms make no difference between them.
        """
        check_canvas(images)
        stage_sizes, width, block = VARIANTS[self.variant]
        kind = {"basic": Basic, "bottleneck": Bottleneck}[block]
        kind = nn.remat(kind, static_argnums=2) if self.remat else kind
        x = Stem(width, self.norm, self.dtype, name="stem")(images, train, valid)
        features = {}
        for stage, blocks in enumerate(stage_sizes):
            for index in range(blocks):
                x = kind(
                    width=width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    norm=self.norm,
                    style=self.style,
                    dtype=self.dtype,
                    name=f"res{stage + 2}_{index}",
                )(x, train, valid)
            features[f"res{stage + 2}"] = x
        return features


def _max_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
    """Maximum over 3 x 3 at stride 2 of a map of even size without negative values.

    Three shifted slices for each axis: the gradient of a windowed reduction takes six
    times as long on CPUs. Zero padding is below every maximum, as nothing is negative.
    """
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = [x[:, start : start + height : 2] for start in range(3)]
    x = jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
    columns = [x[:, :, start : start + width : 2] for start in range(3)]
    return jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])


def check_canvas(images: jax.Array) -> None:
    """Raises ValueError unless height and width are multiples of 32."""
    height, width = images.shape[1:3]
    if height % 32 or width % 32:
        raise ValueError(
            f"canvas: expected height and width in multiples of 32 pixels,"
            f" got {height} x {width}"
        )
