"""YOLACT: dense class scores, boxes and mask coefficients, and mask prototypes.

Bolya et al., "YOLACT: Real-time instance segmentation", ICCV 2019, and its released
code. An object's mask is a linear combination of prototypes shared by the whole image.
Letters: C classes including the background, which comes first; P priors, finest level
first, then row, column, aspect ratio; R ratios; Q prototypes; N objects.
"""

from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.backbones import resnet
from vis_jax.backbones.fpn import FPN, Levels, levels_of
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.layers.conv import Conv
from vis_jax.losses.multibox import CROP_MARGIN, YolactOutput
from vis_jax.ops.bilinear import resize
from vis_jax.ops.box_coder import ROI, UPPER, BoxCoder, decode
from vis_jax.ops.boxes import at_least, clip_boxes, from_cxcywh
from vis_jax.ops.masks import inside_boxes
from vis_jax.ops.nms import NmsResult, fast_nms, fast_nms_each_label
from vis_jax.ops.priors import PriorGrid, yolact_priors
from vis_jax.settings import Count, Natural, Range, Share, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

FINEST, COARSEST = 3, 7  # levels of the pyramid
STRIDE = 2**FINEST
# Deviation: the source does not bound the side ratio, which may overflow.
CODER = BoxCoder(ROI, UPPER)

_Length = Annotated[float, Range(above=0)]
_Lengths = Annotated[tuple[float, ...], Range(above=0)]


@section
class PriorSettings:
    """`model.priors`: the boxes that the detector corrects.

    A prior of side s and ratio r is s sqrt(r) / divisor of an image wide and
    s / sqrt(r) / divisor high. The defaults are those of RGNNVIS, whose ratios are 1,
    1/2 and 2 in pixels of its images; on COCO (550 x 550), YOLACT has the ratios 1, 1/2
    and 2, the divisor 550, and square boxes.
    """

    # Prior side per level, finest first.
    sides: _Lengths = (24.0, 48.0, 96.0, 192.0, 384.0)
    ratios: _Lengths = (1 / 1.8, 0.5 / 1.8, 2 / 1.8)  # width / height, as shares
    divisor: _Length = 500.0  # pixels; a prior of this side spans the whole image
    square: bool = False  # square for every ratio
    # Height and width in pixels of the image that priors are relative to; on frames of
    # other sizes they keep their size in pixels.
    image: tuple[Count, ...] = (480, 864)

    def __post_init__(self) -> None:
        levels = COARSEST - FINEST + 1
        if len(self.sides) != levels:
            raise ValueError(f"sides: expected {levels}, one a level, got {self.sides}")
        if not self.ratios:
            raise ValueError("ratios: expected at least one, got ()")
        if len(self.image) != 2:
            raise ValueError(f"image: expected (height, width), got {self.image}")


@section
class Settings:
    """`model` of a YOLACT."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: backbones.Settings = resnet.Settings(norm="batch")
    fpn: FpnSettings = FpnSettings(upsample="bilinear", extra="conv", relu_outputs=True)
    priors: PriorSettings = PriorSettings()
    prototypes: Count = 32  # mask prototypes that are combined for each object
    dropout: Share = 0.1  # rate of channel dropout on backbone outputs


class YolactRule(NamedTuple):
    """Rule that turns priors into objects.

    Attributes:
      score_threshold: the best class of a prior must be above this.
      iou_threshold: IoU threshold of NMS.
      candidates: most priors per class that enter NMS.
      size: number of objects returned.
      across_classes: class-agnostic NMS; a prior then has one class.
      clipped: clip boxes to the centres of border pixels before NMS, as in the released
        code of RGNNVIS.
    """

    score_threshold: float
    iou_threshold: float
    candidates: int
    size: int
    across_classes: bool
    clipped: bool = False


class FoundPriors(NamedTuple):
    """Objects of an image, best first; padding is zero with label K."""

    priors: Int32[Array, "*lead N"]  # prior of each object
    boxes: Float32[Array, "*lead N 4"]  # in pixels; clipped if the rule says so
    scores: Float32[Array, "*lead N"]
    labels: Int32[Array, "*lead N"]  # 0 .. K - 1, without the background
    valid: Bool[Array, "*lead N"]


class ProtoNet(nn.Module):
    """Prototypes at twice the resolution of the finest level.

    Attributes:
      dim: channels of the hidden layers.
      prototypes: Q.
    """

    dim: int
    prototypes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h2 w2 Q"]:
        """Returns the prototypes, which are non-negative."""
        for number in range(1, 4):
            x = nn.relu(_conv(self.dim, 3, self.dtype, f"conv{number}")(x))
        x = resize(x, (2 * x.shape[1], 2 * x.shape[2]))
        x = nn.relu(_conv(self.dim, 3, self.dtype, "conv4")(x))
        return nn.relu(_conv(self.prototypes, 1, self.dtype, "prototypes")(x))


class PredictionHead(nn.Module):
    """Class, box and coefficients of every prior; layers are shared across levels.

    Attributes:
      dim: channels of the hidden layer.
      classes: C, including the background.
      ratios: priors per cell.
      prototypes: Q.
    """

    dim: int
    classes: int
    ratios: int
    prototypes: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        def conv(width: int) -> Conv:
            return _conv(width, 3, self.dtype, None)

        self.shared = conv(self.dim)
        self.class_logits = conv(self.ratios * self.classes)
        self.deltas = conv(self.ratios * 4)
        self.coefficients = conv(self.ratios * self.prototypes)

    def __call__(
        self, levels: Levels
    ) -> tuple[
        Float32[Array, "B P C"], Float32[Array, "B P 4"], Float32[Array, "B P Q"]
    ]:
        """Returns class logits, deltas and coefficients of the priors of all levels."""
        shared = [nn.relu(self.shared(x)) for x in levels]

        def flat(layer: Conv, width: int) -> Array:
            maps = [layer(x).astype(jnp.float32) for x in shared]
            return jnp.concatenate([x.reshape(len(x), -1, width) for x in maps], axis=1)

        return (
            flat(self.class_logits, self.classes),
            flat(self.deltas, 4),
            jnp.tanh(flat(self.coefficients, self.prototypes)),
        )


class Yolact(nn.Module):
    """All modules after the backbone, as fields, so that systems can share them.

    Attributes:
      dropout: share of the backbone's output channels dropped in training; RGNNVIS,
        section 4.1.
      semantic: class logits of cells, without the background; auxiliary loss only.
    """

    fpn: nn.Module
    protonet: nn.Module
    head: nn.Module
    semantic: nn.Module
    dropout: float = 0.0

    def setup(self) -> None:
        # One mask per image and channel.
        self.drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2))

    def dropped(
        self, features: dict[str, Float[Array, "B _ _ _"]], train: bool
    ) -> dict[str, Float[Array, "B _ _ _"]]:
        """Returns backbone features with dropped channels (rng 'dropout').

        Args:
          features: 'res3', 'res4' and 'res5'.
          train: enables dropout.
        """
        names = [f"res{stage}" for stage in (3, 4, 5)]
        return {
            name: self.drop(features[name], deterministic=not train) for name in names
        }

    def levels(self, features: dict[str, Float[Array, "B _ _ _"]]) -> Levels:
        """Returns the pyramid, 'p3' .. 'p7', of 'res3', 'res4' and 'res5'."""
        return levels_of(self.fpn(features))

    def __call__(self, levels: Levels) -> YolactOutput:
        """Returns the output for all priors, and the prototypes."""
        class_logits, deltas, coefficients = self.head(levels)
        return YolactOutput(
            class_logits,
            deltas,
            coefficients,
            self.protonet(levels[0]).astype(jnp.float32),
            self.semantic(levels[0]).astype(jnp.float32),
        )


def build_modules(settings: Settings, dtype: DTypeLike) -> Yolact:
    """Builds the modules of `model`.

    Args:
      settings: `num_classes` must be that of the data.
      dtype: compute dtype.
    """
    dim, classes = settings.fpn.dim, settings.num_classes
    ratios = len(settings.priors.ratios)
    return Yolact(
        fpn=FPN(**vars(settings.fpn), finest=FINEST, coarsest=COARSEST, dtype=dtype),
        protonet=ProtoNet(dim, settings.prototypes, dtype),
        head=PredictionHead(dim, classes + 1, ratios, settings.prototypes, dtype),
        semantic=_conv(classes, 1, dtype, None),
        dropout=settings.dropout,
    )


def canvas_of(levels: Levels) -> tuple[int, int]:
    """Returns height and width in pixels of the images that the levels come from."""
    return STRIDE * levels[0].shape[1], STRIDE * levels[0].shape[2]


def priors_of(levels: Levels, settings: PriorSettings) -> Float32[Array, "P 4"]:
    """Returns the corners of all priors in pixels; they may extend beyond the image."""
    height, width = canvas_of(levels)
    grid = PriorGrid(settings.sides, settings.ratios, settings.divisor, settings.square)
    relative = yolact_priors([(x.shape[1], x.shape[2]) for x in levels], grid)
    pixels = (width, height, *settings.image[::-1])
    return from_cxcywh(relative * jnp.array(pixels, jnp.float32)[None])


def find(
    out: YolactOutput,
    priors: Float32[Array, "P 4"],
    size: Int32[Array, "2"],
    *,
    rule: YolactRule,
) -> FoundPriors:
    """Detects the objects of one image by Fast NMS.

    Per-class, as the released code evaluates on COCO: a prior whose best class is above
    the threshold may be detected under other classes, too.

    Args:
      out: output of the image.
      priors: in pixels.
      size: height and width of the content in pixels; boxes outside it are dropped.
      rule: see the type.
    """
    boxes = decode(out.deltas, priors, coder=CODER)
    probs = jax.nn.softmax(out.class_logits)[:, 1:]
    count, classes = probs.shape
    best = probs.max(axis=1)
    seen = at_least(clip_boxes(boxes, size), 1e-3)
    if rule.clipped:
        boxes = clip_boxes(boxes, size - 1)
    scores = best if rule.across_classes else probs.T
    suppress = fast_nms if rule.across_classes else fast_nms_each_label
    kept: NmsResult = suppress(
        boxes,
        scores,
        valid=seen & (best > rule.score_threshold),
        iou_threshold=rule.iou_threshold,
        candidates=min(rule.candidates, count),
        size=rule.size,
    )
    labels = kept.chosen // count
    chosen = kept.chosen % count
    if rule.across_classes:
        labels = probs.argmax(axis=1)[chosen]
    return FoundPriors(
        jnp.where(kept.valid, chosen, 0).astype(jnp.int32),
        jnp.where(kept.valid[:, None], boxes[chosen], 0.0),
        jnp.where(kept.valid, scores.ravel()[kept.chosen], 0.0),
        jnp.where(kept.valid, labels, classes).astype(jnp.int32),
        kept.valid,
    )


def combine(
    prototypes: Float32[Array, "h w Q"], coefficients: Float32[Array, "N Q"]
) -> Float32[Array, "N h w"]:
    """Returns mask logits of objects over the whole canvas."""
    return jnp.einsum("hwq,nq->nhw", prototypes, coefficients)


def cropped_masks(
    mask_logits: Float32[Array, "N h w"],
    boxes: Float32[Array, "N 4"],
    canvas: tuple[int, int],
) -> Float32[Array, "N h w"]:
    """Returns probabilities minus 0.5, positive = inside; -0.5 outside the boxes.

    The released code upsamples probabilities that are 0 outside the box, and thresholds
    at 0.5.

    Args:
      mask_logits: over the canvas.
      boxes: in pixels.
      canvas: height and width in pixels.
    """
    cells = (mask_logits.shape[1], mask_logits.shape[2])
    inside = inside_boxes(boxes, cells, canvas, margin=CROP_MARGIN)
    return jnp.where(inside, jax.nn.sigmoid(mask_logits), 0.0) - 0.5


def _conv(width: int, kernel: int, dtype: DTypeLike, name: str | None) -> Conv:
    return Conv(
        width,
        kernel,
        use_bias=True,
        kernel_init=nn.initializers.xavier_uniform(),
        dtype=dtype,
        name=name,
    )
