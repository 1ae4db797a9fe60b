"""FCOS: class, box, centreness and mask filters at every location of a pyramid.

Tian et al., "FCOS: Fully convolutional one-stage object detection", ICCV 2019. Letters:
K classes, P locations, finest level first, then row, then column; Q filter parameters,
N objects, D channels.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.backbones.fpn import Levels
from vis_jax.layers.conv import Conv
from vis_jax.losses.fcos import FcosOutput
from vis_jax.ops.nms import NmsResult, nms_by_label
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

FINEST, COARSEST = 3, 7  # levels of the pyramid
STRIDES = tuple(2**level for level in range(FINEST, COARSEST + 1))
_PRIOR = 0.01  # initial probability of every class
_NORMAL = nn.initializers.normal(0.01)

Cells = tuple[tuple[int, int], ...]  # height and width of every level


@section
class Settings:
    """`model.head`: the detection head; its layers are shared by all levels."""

    convs: Count = 4  # 3x3 convolutions before the outputs, for both towers


class Places(NamedTuple):
    """Locations of all levels."""

    locations: Float32[Array, "*lead P 2"]  # x, y in pixels
    strides: Int32[Array, "*lead P"]  # stride of each location's level in pixels


class Tower(nn.Module):
    """Convolutions with group norm and ReLU.

    Attributes:
      dim: channels.
      convs: number of layers.
    """

    dim: int
    convs: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.layers = [
            Conv(self.dim, 3, norm="group", kernel_init=_NORMAL, dtype=self.dtype)
            for _ in range(self.convs)
        ]

    def __call__(self, x: Float[Array, "B h w _"]) -> Float[Array, "B h w D"]:
        """Returns the features after the last layer."""
        for layer in self.layers:
            x = nn.relu(layer(x))
        return x


class FCOSHead(nn.Module):
    """Outputs at every location, including mask filters.

    The identities of IAI (Zhu et al., "Instance as identity", ECCV 2022) have their own
    tower.

    Attributes:
      dim: channels of the towers.
      convs: layers of the class and box towers.
      classes: K.
      filters: Q.
      ids: number of identities; 0 for none.
      id_convs: layers of the identity tower.
    """

    dim: int
    convs: int
    classes: int
    filters: int
    ids: int = 0
    id_convs: int = 1
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        prior = -math.log((1 - _PRIOR) / _PRIOR)

        def output(width: int, bias: float = 0.0) -> Conv:
            return Conv(
                width, 3, use_bias=True, kernel_init=_NORMAL,
                bias_init=nn.initializers.constant(bias), dtype=self.dtype,
            )  # fmt: skip

        self.class_tower = Tower(self.dim, self.convs, self.dtype)
        self.box_tower = Tower(self.dim, self.convs, self.dtype)
        self.class_logits = output(self.classes, prior)
        self.distances = output(4)
        self.centre_logits = output(1)
        self.controller = output(self.filters)
        if self.ids:
            self.id_tower = Tower(self.dim, self.id_convs, self.dtype)
            self.id_logits = output(self.ids, prior)
        self.scales = [
            self.param(f"scale{level}", nn.initializers.ones, (1,), jnp.float32)
            for level in range(FINEST, COARSEST + 1)
        ]

    def __call__(self, levels: Levels) -> FcosOutput:
        """Returns the output for the locations of all levels."""
        outputs = [
            self._level(x, scale, stride)
            for x, scale, stride in zip(levels, self.scales, STRIDES, strict=True)
        ]
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *outputs)

    def _level(
        self, x: Float[Array, "B h w D"], scale: Float32[Array, "1"], stride: int
    ) -> FcosOutput:
        def flat(x: Float[Array, "B h w _"]) -> Float32[Array, "B hw _"]:
            return x.astype(jnp.float32).reshape(len(x), -1, x.shape[-1])

        of_class, of_box = self.class_tower(x), self.box_tower(x)
        distances = flat(self.distances(of_box)) * scale.reshape(1, 1, 1)
        classes = flat(self.class_logits(of_class))
        ids = flat(self.id_logits(self.id_tower(x))) if self.ids else classes[..., :0]
        return FcosOutput(
            classes,
            nn.relu(distances) * stride,
            flat(self.centre_logits(of_box))[..., 0],
            flat(self.controller(of_box)),
            ids,
        )


def cells_of(levels: Levels) -> Cells:
    """Returns height and width of every level."""
    return tuple((x.shape[1], x.shape[2]) for x in levels)


def places_of(cells: Cells) -> Places:
    """Returns the centre of every cell: x = stride j + stride // 2, y likewise.

    Args:
      cells: height and width of every level.
    """
    locations, strides = [], []
    for (height, width), stride in zip(cells, STRIDES, strict=True):
        y, x = jnp.mgrid[:height, :width].reshape(2, -1)
        middle = jnp.stack([x, y], axis=1) * stride + stride // 2
        locations.append(middle.astype(jnp.float32))
        strides.append(jnp.full(height * width, stride, jnp.int32))
    return Places(jnp.concatenate(locations), jnp.concatenate(strides))


def boxes_at(
    locations: Float32[Array, "*lead 2"], distances: Float32[Array, "*lead 4"]
) -> Float32[Array, "*lead 4"]:
    """Returns the corners of boxes from side distances at locations, in pixels."""
    return jnp.concatenate(
        [locations - distances[..., :2], locations + distances[..., 2:]], axis=-1
    )


def candidates(
    ranks: Float32[Array, "P"], cells: Cells, *, most: int
) -> Int32[Array, "C"]:
    """Returns the locations with the highest ranks on each level.

    Args:
      ranks: ranks of all locations.
      cells: height and width of every level.
      most: most locations per level.
    """
    chosen, start = [], 0
    for height, width in cells:
        count = height * width
        level = ranks[start : start + count]
        chosen.append(start + jax.lax.top_k(level, min(most, count))[1])
        start += count
    return jnp.concatenate(chosen)


def suppress(
    boxes: Float32[Array, "C 4"],
    ranks: Float32[Array, "C"],
    *,
    valid: Bool[Array, "C"],
    iou_threshold: float,
    size: int,
) -> NmsResult:
    """Applies greedy class-agnostic NMS; there may be fewer boxes than `size`.

    Args:
      boxes, valid, iou_threshold: see `nms_by_label`.
      ranks: scores that order the boxes.
      size: number of boxes returned.
    """
    count = len(ranks)
    kept = nms_by_label(
        boxes,
        ranks,
        jnp.zeros(count, jnp.int32),
        valid=valid,
        iou_threshold=iou_threshold,
        size=min(size, count),
    )
    missing = max(size - count, 0)
    return NmsResult(*(jnp.pad(x, (0, missing)) for x in kept))
