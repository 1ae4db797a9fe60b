"""Mask R-CNN whose box head also predicts the identity of each region.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, report this variant (Table 6) without released code; details
are this library's decisions. Letters: R regions, S side of their features, K classes, N
identities, the last one for new objects, D objects per frame.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.detectors.box_head import BoxHead, BoxOutput
from vis_jax.detectors.fcos import suppress
from vis_jax.detectors.id_objects import Rank, mix
from vis_jax.ops.box_coder import BoxCoder, decode
from vis_jax.ops.boxes import clip_boxes
from vis_jax.typing import Array, Bool, Float, Float32, Int32


class IdBoxOutput(NamedTuple):
    """Output for each region; the last class and identity are background."""

    boxes: BoxOutput
    id_logits: Float32[Array, "*lead R N1"]


class IdBoxHead(BoxHead):
    """The box head with an additional linear layer for identities.

    Attributes:
      ids: N.
    """

    ids: int = 1

    def setup(self) -> None:
        super().setup()
        self.id_logits = nn.Dense(
            self.ids + 1, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype
        )

    def identify(self, pooled: Float[Array, "*lead R S S C"]) -> IdBoxOutput:
        """Returns classes, boxes and identities from RoI features."""
        x = self.describe(pooled)
        logits = self.id_logits(x).astype(jnp.float32)
        return IdBoxOutput(self.read(x), logits)


class IdRegionRule(NamedTuple):
    """Rule that turns regions into objects.

    Attributes:
      class_threshold: a region's best class must be above this, and ..
      id_threshold: .. its best identity above this.
      iou_threshold: IoU threshold of class-agnostic NMS.
      size: D.
      rank: score that orders objects in NMS.
    """

    class_threshold: float
    id_threshold: float
    iou_threshold: float
    size: int
    rank: Rank


class IdBoxes(NamedTuple):
    """Objects of a frame, best rank first; padding is zero with label K."""

    boxes: Float32[Array, "D 4"]  # in pixels, within the content
    labels: Int32[Array, "D"]
    class_scores: Float32[Array, "D K"]  # probabilities
    id_scores: Float32[Array, "D N"]  # probabilities
    valid: Bool[Array, "D"]


def find_boxes(
    out: IdBoxOutput,
    regions: Float32[Array, "R 4"],
    *,
    valid: Bool[Array, "R"],
    size: Int32[Array, "2"],
    first: Bool[Array, ""],
    coder: BoxCoder,
    rule: IdRegionRule,
) -> IdBoxes:
    """Detects the objects of one image; a region has the box of its best class.

    Args:
      out: output of the regions.
      regions: reference boxes of the deltas, in pixels.
      valid: False marks padded regions.
      size: height and width of the content in pixels.
      first: whether the image is the first of its video.
      coder: box coder of the deltas.
      rule: see the type.
    """
    classes = jax.nn.softmax(out.boxes.class_logits)[:, :-1]
    ids = jax.nn.softmax(out.id_logits)[:, :-1]
    labels = classes.argmax(axis=1).astype(jnp.int32)
    deltas = _of_class(out.boxes.deltas, labels)
    boxes = clip_boxes(decode(deltas, regions, coder=coder), size)
    mixed = mix(
        classes.max(axis=1),
        ids,
        first=first,
        rank=rule.rank,
        class_threshold=rule.class_threshold,
        id_threshold=rule.id_threshold,
    )
    kept = suppress(
        boxes,
        mixed.ranks,
        valid=valid & mixed.counted,
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    found = (x[kept.chosen] for x in (boxes, classes, ids))
    boxes, scores, ids = (jnp.where(kept.valid[:, None], x, 0.0) for x in found)
    labels = jnp.where(kept.valid, labels[kept.chosen], classes.shape[1])
    return IdBoxes(boxes, labels, scores, ids, kept.valid)


def _of_class(
    deltas: Float32[Array, "R K 4"], labels: Int32[Array, "R"]
) -> Float32[Array, "R 4"]:
    return jnp.take_along_axis(deltas, labels[:, None, None], axis=1)[:, 0]
