"""Region proposal network: class-agnostic object proposals.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3. Letters: A anchors of all levels in
the order of `ops.anchors`, R anchor ratios per cell, P proposals.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.ops.box_coder import BoxCoder, decode
from vis_jax.ops.boxes import at_least, clip_boxes
from vis_jax.ops.nms import nms_by_label
from vis_jax.settings import Count, Range, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

_NORMAL = nn.initializers.normal(0.01)


@section
class Settings:
    """`model.rpn`."""

    dim: Count = 256  # channels of the shared convolution
    sampled: Annotated[int, Range(least=2)] = 64  # sampled anchors per image
    proposals: Count = 200  # regions kept per image
    scale: Annotated[float, Range(above=0)] = 8.0  # side of anchors, in strides


class RPNOutput(NamedTuple):
    """Output for each anchor."""

    objectness_logits: Float32[Array, "N A"]
    deltas: Float32[Array, "N A 4"]


class ProposalRule(NamedTuple):
    """Rule that turns anchors into proposals.

    Attributes:
      before: best anchors per level that enter NMS.
      size: number of proposals returned.
      iou_threshold: IoU threshold of NMS within a level.
      least_side: narrower proposals are dropped, in pixels; 0 drops none.
    """

    before: int
    size: int
    iou_threshold: float
    least_side: float


class Proposals(NamedTuple):
    """Boxes in pixels, best first; padding is zero."""

    boxes: Float32[Array, "*lead P 4"]
    logits: Float32[Array, "*lead P"]
    valid: Bool[Array, "*lead P"]


class RPN(nn.Module):
    """A head shared by all levels.

    Attributes:
      dim: channels of the hidden layer.
      ratios: anchors per cell.
    """

    dim: int
    ratios: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Sequence[Float[Array, "N _ _ C"]]) -> RPNOutput:
        """Returns logits and deltas of the anchors of all levels, finest first."""

        def conv(width: int, kernel: int, name: str) -> Conv:
            return Conv(
                width,
                kernel,
                use_bias=True,
                kernel_init=_NORMAL,
                dtype=self.dtype,
                name=name,
            )

        hidden = conv(self.dim, 3, "conv")
        objectness = conv(self.ratios, 1, "objectness")
        deltas = conv(4 * self.ratios, 1, "deltas")
        hiddens = [nn.relu(hidden(x)) for x in features]
        count = features[0].shape[0]
        logits = [objectness(x).reshape(count, -1) for x in hiddens]
        boxes = [deltas(x).reshape(count, -1, 4) for x in hiddens]
        return RPNOutput(
            jnp.concatenate(logits, axis=1).astype(jnp.float32),
            jnp.concatenate(boxes, axis=1).astype(jnp.float32),
        )


def propose(
    objectness_logits: Float32[Array, "A"],
    deltas: Float32[Array, "A 4"],
    anchors: Float32[Array, "A 4"],
    *,
    counts: tuple[int, ...],
    image_size: Int32[Array, "2"],
    coder: BoxCoder,
    rule: ProposalRule,
) -> Proposals:
    """Returns the best boxes of one image after per-level NMS.

    No gradient flows through the boxes.

    Args:
      counts: number of anchors on each level.
      image_size: height and width of the content in pixels; boxes are clipped to it.

    Raises:
      ValueError: `rule.size` exceeds the number of anchors that enter NMS.
    """
    chosen, levels, start = [], [], 0
    for level, count in enumerate(counts):
        best = min(rule.before, count)
        _, index = jax.lax.top_k(objectness_logits[start : start + count], best)
        chosen.append(index + start)
        levels.append(jnp.full(best, level, jnp.int32))
        start += count
    index = jnp.concatenate(chosen)
    logits = jax.lax.stop_gradient(objectness_logits[index])
    boxes = decode(jax.lax.stop_gradient(deltas[index]), anchors[index], coder=coder)
    boxes = clip_boxes(boxes, image_size)
    kept = nms_by_label(
        boxes,
        logits,
        jnp.concatenate(levels),
        valid=at_least(boxes, rule.least_side),
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    return Proposals(
        jnp.where(kept.valid[:, None], boxes[kept.chosen], 0.0),
        jnp.where(kept.valid, logits[kept.chosen], 0.0),
        kept.valid,
    )
