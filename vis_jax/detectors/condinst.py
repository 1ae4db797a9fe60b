"""CondInst: FCOS whose locations also predict the filters of their mask.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020. Letters: B
images, K classes, P locations, Q filter parameters, M ground-truth objects, N objects,
S positives whose masks are trained, h w cells of the finest level, C channels there.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.backbones.fpn import FPN, levels_of
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.detectors import fcos
from vis_jax.detectors.fcos import (
    COARSEST,
    FINEST,
    STRIDES,
    Cells,
    FCOSHead,
    Levels,
    Places,
    boxes_at,
    candidates,
    suppress,
)
from vis_jax.layers.conv import Conv
from vis_jax.losses.fcos import FcosOutput
from vis_jax.ops.bilinear import aligned_upsample
from vis_jax.ops.boxes import at_least, clip_boxes
from vis_jax.ops.dynamic_masks import dynamic_masks, num_params
from vis_jax.settings import Count, section
from vis_jax.typing import (
    Array,
    Bool,
    DTypeLike,
    Float,
    Float32,
    Int32,
)

MASK_STRIDE = STRIDES[0] // 2  # pixels of a cell of masks
_SUMMED = 3  # number of finest levels that the mask branch reads
# PyTorch's default initialisation of convolutions.
_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@section
class MaskSettings:
    """`model.masks`: the branch with the mask features."""

    dim: Count = 128  # channels of the hidden layers
    convs: Count = 4  # 3x3 convolutions after the sum of levels
    channels: Count = 8  # output channels


class CondInstOutput(NamedTuple):
    """Output of the network for images."""

    dense: FcosOutput
    features: Float32[Array, "*lead h w C"]  # features of the mask branch


class LocationRule(NamedTuple):
    """Rule that turns locations into objects.

    Attributes:
      score_threshold: a location's best class probability times centreness must be
        above this.
      iou_threshold: IoU threshold of class-agnostic NMS.
      candidates: most locations per level that enter NMS.
      size: number of objects returned.
    """

    score_threshold: float
    iou_threshold: float
    candidates: int
    size: int


class FoundPlaces(NamedTuple):
    """Objects of an image, best first; padding is zero with label K."""

    chosen: Int32[Array, "*lead N"]  # location of each
    boxes: Float32[Array, "*lead N 4"]  # in pixels, within the content
    scores: Float32[Array, "*lead N"]  # probability of the class times centreness
    labels: Int32[Array, "*lead N"]
    valid: Bool[Array, "*lead N"]


class MaskBranch(nn.Module):
    """Features shared by all masks of an image, at the finest level.

    Attributes:
      dim, convs, channels: see `MaskSettings`.
    """

    dim: int
    convs: int
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        levels: Levels,
        train: bool = False,
        valid: Bool[Array, "B"] | None = None,
    ) -> Float32[Array, "B h w C"]:
        """Sums the finest levels, upsampled, and applies the mask convolutions.

        Args:
          levels: finest first.
          train, valid: see `BatchNorm`.
        """
        conv = functools.partial(
            Conv, self.dim, 3, norm="batch", kernel_init=_UNIFORM, dtype=self.dtype
        )
        refined = [
            nn.relu(conv(name=f"refine{FINEST + place}")(level, train, valid))
            for place, level in enumerate(levels[:_SUMMED])
        ]
        x = refined[0]
        for place, level in enumerate(refined[1:], start=1):
            x = x + aligned_upsample(level, 2**place)
        for number in range(1, self.convs + 1):
            x = nn.relu(conv(name=f"conv{number}")(x, train, valid))
        # Deviation: the bias starts at 0; in PyTorch within 1 / sqrt(dim).
        output = Conv(
            self.channels, 1, use_bias=True, kernel_init=_UNIFORM,
            dtype=self.dtype, name="output",
        )  # fmt: skip
        return output(x).astype(jnp.float32)


class CondInst(nn.Module):
    """All modules after the backbone, as fields, so that systems can share them.

    Modules that mix features across frames come before `levels`.
    """

    fpn: nn.Module
    head: nn.Module
    masks: nn.Module

    def levels(self, features: dict[str, Float[Array, "B _ _ _"]]) -> Levels:
        """Returns the pyramid, 'p3' .. 'p7'.

        Args:
          features: 'res3', 'res4' and 'res5'.
        """
        return levels_of(self.fpn(features))

    def __call__(
        self,
        levels: Levels,
        train: bool = False,
        valid: Bool[Array, "B"] | None = None,
    ) -> CondInstOutput:
        """Returns the output for all locations, and the mask features."""
        return CondInstOutput(self.head(levels), self.masks(levels, train, valid))


def build_modules(
    fpn: FpnSettings,
    head: fcos.Settings,
    masks: MaskSettings,
    *,
    classes: int,
    dtype: DTypeLike,
    ids: int = 0,
    id_convs: int = 1,
) -> CondInst:
    """Builds the modules after the backbone.

    Args:
      fpn, head, masks: settings of the config.
      classes: K.
      dtype: compute dtype.
      ids, id_convs: see `FCOSHead`.
    """
    return CondInst(
        fpn=FPN(**vars(fpn), finest=FINEST, coarsest=COARSEST, dtype=dtype),
        head=FCOSHead(
            fpn.dim, head.convs, classes, num_params(masks.channels), ids, id_convs,
            dtype=dtype,
        ),
        masks=MaskBranch(masks.dim, masks.convs, masks.channels, dtype=dtype),
    )  # fmt: skip


def class_scores(out: FcosOutput) -> Float32[Array, "*lead P K"]:
    """Returns class probabilities times centreness."""
    centres = jax.nn.sigmoid(out.centre_logits)
    return jax.nn.sigmoid(out.class_logits) * centres[..., None]


def find(
    out: FcosOutput,
    places: Places,
    size: Int32[Array, "2"],
    *,
    cells: Cells,
    rule: LocationRule,
) -> FoundPlaces:
    """Detects the objects of one image; a location has one class.

    Args:
      out: output of the image.
      places: the locations.
      size: height and width of the content in pixels; boxes outside it are dropped.
      cells: height and width of every level.
      rule: see the type.
    """
    scores = class_scores(out)
    best = scores.max(axis=1)
    chosen = candidates(best, cells, most=rule.candidates)
    boxes = boxes_at(places.locations[chosen], out.distances[chosen])
    boxes = clip_boxes(boxes, size)
    kept = suppress(
        boxes,
        best[chosen],
        valid=at_least(boxes, 1e-3) & (best[chosen] > rule.score_threshold),
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    places_kept, valid = chosen[kept.chosen], kept.valid
    labels = scores[places_kept].argmax(axis=1)
    return FoundPlaces(
        jnp.where(valid, places_kept, 0).astype(jnp.int32),
        jnp.where(valid[:, None], boxes[kept.chosen], 0.0),
        jnp.where(valid, best[places_kept], 0.0),
        jnp.where(valid, labels, scores.shape[1]).astype(jnp.int32),
        valid,
    )


def mask_logits(
    filters: Float32[Array, "N Q"], features: Float[Array, "h w C"], places: Places
) -> Float32[Array, "N h2 w2"]:
    """Returns masks over the canvas, at twice the resolution of the features.

    Cell i is centred at pixel 4 i + 2.

    Args:
      filters: filters of each object.
      features: features of the mask branch.
      places: location of each object.
    """
    logits = dynamic_masks(
        filters, features, places.locations, places.strides, stride=STRIDES[0]
    )
    return aligned_upsample(logits[..., None], STRIDES[0] // MASK_STRIDE)[..., 0]


def shown_masks(logits: Float32[Array, "N h w"]) -> Float32[Array, "N h w"]:
    """Returns probabilities minus 0.5 at cell centres; positive = inside.

    The released code upsamples probabilities with cell i at pixel 4 i + 2; the centre
    of the cell's four pixels is half a pixel earlier.
    """
    probs = jax.nn.sigmoid(logits)
    back = 0.5 / MASK_STRIDE
    for axis in (1, 2):
        first = jax.lax.slice_in_dim(probs, 0, 1, axis=axis)
        others = jax.lax.slice_in_dim(probs, 0, probs.shape[axis] - 1, axis=axis)
        before = jnp.concatenate([first, others], axis=axis)
        probs = (1 - back) * probs + back * before
    return probs - 0.5
