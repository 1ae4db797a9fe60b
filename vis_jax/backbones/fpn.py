"""Feature pyramid: equally wide maps at strides 4, 8, 16, 32, 64 and so on.

Lin et al., "Feature pyramid networks for object detection", CVPR 2017; levels above the
backbone's follow Lin et al., "Focal loss for dense object detection", ICCV 2017.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.ops.bilinear import resize
from vis_jax.settings import Count, section
from vis_jax.typing import Array, DTypeLike, Float

_LAST = 5  # last backbone stage

Levels = tuple[Float[Array, "B _ _ D"], ...]

# detectron2's c2_xavier_fill, PyTorch's kaiming_uniform_(a=1): +-sqrt(3 / fan_in).
_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


@section
class Settings:
    """`model.fpn`; the system decides which levels exist."""

    dim: Count = 256  # channels of every level
    # Upsampling of a level to the next finer one: nearest in Mask R-CNN and CondInst,
    # bilinear in YOLACT.
    upsample: Literal["nearest", "bilinear"] = "nearest"
    # Levels above 'p5', each from the previous one: pool takes every second cell (Mask
    # R-CNN), conv is a 3x3 convolution of stride 2 (YOLACT), relu_conv has a ReLU
    # between two of these (CondInst).
    extra: Literal["pool", "conv", "relu_conv"] = "pool"
    relu_outputs: bool = False  # ReLU after 'p5' and finer levels, as in YOLACT


def levels_of(pyramid: dict[str, Float[Array, "B _ _ D"]]) -> Levels:
    """Returns the output of `FPN` as a tuple, finest level first."""
    return tuple(pyramid[name] for name in sorted(pyramid))


class FPN(nn.Module):
    """Maps backbone features 'res2' .. 'res5' to 'p2' .. 'p6', or other ranges.

    Attributes:
      dim, upsample, extra, relu_outputs: see `Settings`.
      finest: number of the finest level and finest backbone stage used, 2 .. 5.
      coarsest: number of the coarsest level, at least 5.
    """

    dim: int
    upsample: str = "nearest"
    extra: str = "pool"
    relu_outputs: bool = False
    finest: int = 2
    coarsest: int = 6
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        stages = range(self.finest, _LAST + 1)
        self.lateral_convs = {n: self._conv(f"lateral{n}", 1) for n in stages}
        self.output_convs = {n: self._conv(f"output{n}", 3) for n in stages}
        above = range(_LAST + 1, self.coarsest + 1) if self.extra != "pool" else ()
        self.extra_convs = {n: self._conv(f"output{n}", 3, 2) for n in above}

    def _conv(self, name: str, side: int, stride: int = 1) -> Conv:
        return Conv(
            self.dim,
            side,
            stride,
            use_bias=True,
            kernel_init=_FAN_IN,
            dtype=self.dtype,
            name=name,
        )

    def __call__(
        self, features: dict[str, Float[Array, "N _ _ _"]]
    ) -> dict[str, Float[Array, "N _ _ D"]]:
        """Returns the levels by name, finest first."""
        return self.merge(self.laterals(features))

    def laterals(
        self, features: dict[str, Float[Array, "N _ _ _"]]
    ) -> tuple[Float[Array, "N _ _ D"], ...]:
        """Projects the backbone stages to the pyramid's width, finest first."""
        return tuple(
            conv(features[f"res{stage}"]) for stage, conv in self.lateral_convs.items()
        )

    def merge(
        self, laterals: tuple[Float[Array, "N _ _ D"], ...]
    ) -> dict[str, Float[Array, "N _ _ D"]]:
        """Merges `laterals` top-down; returns levels by name, finest first."""
        levels: dict[str, jax.Array] = {}
        top = None
        for stage in range(_LAST, self.finest - 1, -1):
            x = laterals[stage - self.finest]
            size = (x.shape[1], x.shape[2])
            top = x if top is None else x + self._enlarge(top, size)
            level = self.output_convs[stage](top)
            levels[f"p{stage}"] = nn.relu(level) if self.relu_outputs else level
        x = levels[f"p{_LAST}"]
        for number in range(_LAST + 1, self.coarsest + 1):
            if self.extra == "pool":
                x = x[:, ::2, ::2]  # 1 x 1 max pooling
            else:
                between = self.extra == "relu_conv" and number > _LAST + 1
                x = nn.relu(x) if between else x
                x = self.extra_convs[number](x)
            levels[f"p{number}"] = x
        return {name: levels[name] for name in sorted(levels)}

    def _enlarge(
        self, x: Float[Array, "N h w D"], size: tuple[int, int]
    ) -> Float[Array, "N H W D"]:
        if self.upsample == "bilinear":
            return resize(x, size)
        return _nearest(x, size)


def _nearest(x: Float[Array, "N h w D"], size: tuple[int, int]) -> jax.Array:
    """Upsamples by nearest neighbour, at the top left of new cells, as in PyTorch."""
    height, width = x.shape[1:3]
    if size == (2 * height, 2 * width):
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    rows, columns = (
        jnp.arange(new) * old // new
        for new, old in zip(size, (height, width), strict=True)
    )
    return x[:, rows][:, :, columns]
