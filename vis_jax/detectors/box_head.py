"""Box head: class and box of regions of interest.

Girshick, "Fast R-CNN", ICCV 2015. Letters: R regions, S side of their features.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.ops.box_coder import BoxCoder, decode
from vis_jax.ops.boxes import at_least, clip_boxes
from vis_jax.ops.nms import nms_by_label, nms_each_label
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


@section
class Settings:
    """`model.box_head`."""

    width: Count = 1024  # width of both fully connected layers


class BoxOutput(NamedTuple):
    """Class logits and box deltas of each region; the last class is background."""

    class_logits: Float32[Array, "*lead R K1"]
    deltas: Float32[Array, "*lead R K 4"]


class DetectRule(NamedTuple):
    """Rule that turns regions into detections.

    Attributes:
      score_threshold: scores must be above this.
      iou_threshold: IoU threshold of NMS within a class.
      least_side: narrower boxes are dropped, in pixels; 0 drops none.
      size: number of detections returned.
    """

    score_threshold: float
    iou_threshold: float
    least_side: float
    size: int


class FoundBoxes(NamedTuple):
    """Detections of an image, best first; padding is zero with label K."""

    boxes: Float32[Array, "*lead N 4"]
    scores: Float32[Array, "*lead N"]
    labels: Int32[Array, "*lead N"]
    valid: Bool[Array, "*lead N"]


class FoundClasses(NamedTuple):
    """Detections of images with all class probabilities; padding is zero."""

    found: FoundBoxes
    class_probs: Float32[Array, "*lead N K"]  # without background


class BoxHead(nn.Module):
    """Two hidden layers, then class logits and one box per class.

    Attributes:
      num_classes: without background.
      width: width of the hidden layers.
    """

    num_classes: int
    width: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        def dense(width: int, init: nn.initializers.Initializer) -> nn.Dense:
            return nn.Dense(width, kernel_init=init, dtype=self.dtype)

        # The kernel keeps the feature axes, [S, S, C, width].
        self.fc1 = nn.DenseGeneral(
            self.width, axis=(-3, -2, -1), kernel_init=_FAN_IN, dtype=self.dtype
        )
        self.fc2 = dense(self.width, _FAN_IN)
        normal = nn.initializers.normal
        self.class_logits = dense(self.num_classes + 1, normal(0.01))
        self.deltas = dense(4 * self.boxes, normal(0.001))

    @property
    def boxes(self) -> int:
        """Boxes per region: one per class."""
        return self.num_classes

    def describe(
        self, pooled: Float[Array, "*lead R S S C"]
    ) -> Float[Array, "*lead R D"]:
        """Returns the last hidden layer, the input of the classifier."""
        return nn.relu(self.fc2(nn.relu(self.fc1(pooled))))

    def __call__(self, pooled: Float[Array, "*lead R S S C"]) -> BoxOutput:
        """Returns logits and deltas from RoI features."""
        return self.read(self.describe(pooled))

    def read(self, x: Float[Array, "*lead R D"]) -> BoxOutput:
        """Returns logits and deltas from the last hidden layer."""
        deltas = self.deltas(x)
        deltas = deltas.reshape(*deltas.shape[:-1], self.boxes, 4)
        return BoxOutput(
            self.class_logits(x).astype(jnp.float32), deltas.astype(jnp.float32)
        )


class SharedBoxHead(BoxHead):
    """A box head with one class-agnostic box, as in cascades."""

    @property
    def boxes(self) -> int:
        """Boxes per region: one."""
        return 1


def detect(
    class_logits: Float32[Array, "R K1"],
    deltas: Float32[Array, "R K 4"],
    regions: Float32[Array, "R 4"],
    *,
    valid: Bool[Array, "R"],
    image_size: Int32[Array, "2"],
    coder: BoxCoder,
    rule: DetectRule,
) -> FoundBoxes:
    """Returns the best boxes of one image after per-class NMS.

    A region may be detected under several classes.

    Args:
      class_logits: the last class is background.
      deltas: for the box of each class.
      regions: reference boxes of the deltas, in pixels.
      valid: False marks padded regions.
      image_size: height and width of the content in pixels; boxes are clipped to it.

    Raises:
      ValueError: `rule.size` exceeds regions times classes.
    """
    classes = deltas.shape[1]
    references = jnp.broadcast_to(regions[:, None], deltas.shape)
    boxes = clip_boxes(decode(deltas, references, coder=coder), image_size)
    boxes = boxes.swapaxes(0, 1)
    scores = jax.nn.softmax(class_logits)[:, :-1].T
    usable = valid[None] & (scores > rule.score_threshold)
    kept = nms_each_label(
        boxes,
        scores,
        usable & at_least(boxes, rule.least_side),
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    labels = kept.chosen // regions.shape[0]
    return FoundBoxes(
        jnp.where(kept.valid[:, None], boxes.reshape(-1, 4)[kept.chosen], 0.0),
        jnp.where(kept.valid, scores.ravel()[kept.chosen], 0.0),
        jnp.where(kept.valid, labels, classes),
        kept.valid,
    )


def detect_shared(
    class_logits: Float32[Array, "R K1"],
    boxes: Float32[Array, "R 4"],
    *,
    valid: Bool[Array, "R"],
    rule: DetectRule,
    candidates: int,
) -> FoundClasses:
    """Same as `detect`, for decoded boxes shared by all classes.

    Args:
      class_logits: the last class is background.
      boxes: in pixels.
      valid: False marks padded boxes.
      rule: turns boxes into objects.
      candidates: number of best (box, class) pairs that take part; capped at all pairs.

    Raises:
      ValueError: `rule.size` exceeds the number of candidates.
    """
    probs = jax.nn.softmax(class_logits)[:, :-1]
    count, classes = probs.shape
    usable = valid & at_least(boxes, rule.least_side)
    usable = usable[:, None] & (probs > rule.score_threshold)
    ranked = jnp.where(usable, probs, -1.0).ravel()
    scores, pairs = jax.lax.top_k(ranked, min(candidates, count * classes))
    kept = nms_by_label(
        boxes[pairs // classes],
        scores,
        pairs % classes,
        valid=scores > rule.score_threshold,
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    chosen = pairs[kept.chosen]
    at, label = chosen // classes, chosen % classes
    found = FoundBoxes(
        jnp.where(kept.valid[:, None], boxes[at], 0.0),
        jnp.where(kept.valid, scores[kept.chosen], 0.0),
        jnp.where(kept.valid, label, classes),
        kept.valid,
    )
    return FoundClasses(found, jnp.where(kept.valid[:, None], probs[at], 0.0))
