"""Trains a track head on any detector, using pairs of frames.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, sections 3.2 and 4. The
detector must provide frame features and a function that embeds boxes in them; it need
not have proposals. The head learns from the ground-truth boxes of the key frame, which
are also among the proposals of MaskTrack R-CNN, and from objects detected there, as at
test time. Letters: B clips, T frames, I = B T images, M ground-truth objects, N objects
detected per frame, R = N + M regions, S sampled regions, E embedding channels.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.detectors.frame_pair import Pair, Roles, frames_at
from vis_jax.detectors.rcnn_targets import RegionTargets
from vis_jax.losses.identity import track_loss
from vis_jax.ops.boxes import box_iou
from vis_jax.structures import Batch
from vis_jax.typing import Array, Bool, Float32, Int32


@runtime_checkable
class Embed(Protocol):
    """A track head."""

    def __call__(
        self, features: Any, boxes: Float32[Array, "B R 4"], /
    ) -> Float32[Array, "B R E"]:
        """Returns the embeddings of regions.

        Args:
          features: features of images, one image per row of boxes.
          boxes: x1 y1 x2 y2 in canvas pixels.
        """
        ...


class ImageDetections(NamedTuple):
    """Objects that a detector found in images."""

    boxes: Float32[Array, "*lead N 4"]  # in canvas pixels
    valid: Bool[Array, "*lead N"]


class Regions(NamedTuple):
    """Regions that train a track head: detections, then ground-truth boxes."""

    boxes: Float32[Array, "*lead R 4"]
    truth: Int32[Array, "*lead R"]  # the ground-truth object of highest IoU
    counted: Bool[Array, "*lead R"]  # whether that IoU is high enough


def regions_of(
    found: ImageDetections,
    boxes: Float32[Array, "M 4"],
    present: Bool[Array, "M"],
    *,
    least: float,
) -> Regions:
    """Returns the regions of one image.

    Args:
      found: detections in the image.
      boxes, present: ground truth.
      least: IoU with a ground-truth object above which a region counts.
    """
    regions = jnp.concatenate([found.boxes, boxes])
    overlap = jnp.where(present[None], box_iou(regions, boxes), 0.0)
    valid = jnp.concatenate([found.valid, present])
    return Regions(
        regions,
        overlap.argmax(axis=1).astype(jnp.int32),
        valid & (overlap.max(axis=1) >= least),
    )


def pair_loss(
    embed: Embed,
    features: Any,
    found: ImageDetections,
    batch: Batch,
    *,
    roles: Roles,
    least: float,
) -> Float32[Array, ""]:
    """Returns the loss of assigning key regions to reference objects; Eq. 2.

    Args:
      embed: the track head.
      features: features of all frames, arrays [I ..]; differentiated.
      found: detections of the key frames, [B N]; not differentiated.
      batch: clips with their ground truth.
      roles: key and reference frame of each clip.
      least: IoU with a ground-truth object above which a region counts.
    """
    rows = jnp.arange(len(roles.key))
    present = batch.present & batch.instance_valid[..., None]
    present &= batch.frame_valid[:, None]
    in_reference = present[rows, :, roles.reference]

    def one(found: ImageDetections, boxes: Array, present: Array) -> Regions:
        return regions_of(found, boxes, present, least=least)

    regions = jax.vmap(one)(
        jax.lax.stop_gradient(found),
        batch.boxes[rows, :, roles.key],
        present[rows, :, roles.key],
    )
    return track_loss(
        embed(frames_at(features, roles.key), regions.boxes),
        embed(
            frames_at(features, roles.reference), batch.boxes[rows, :, roles.reference]
        ),
        regions.truth,
        counted=regions.counted,
        present=in_reference,
    )


def region_track_loss(
    embeds: Float32[Array, "B S E"],
    reference: Float32[Array, "B M E"],
    positives: RegionTargets,
    pair: Pair,
    *,
    least: float,
) -> Float32[Array, ""]:
    """Returns the loss of assigning positive regions to reference objects; Eq. 2.

    For detectors with proposals, whose samples are already matched to ground truth.

    Args:
      embeds: embeddings of the regions.
      reference: embeddings of the reference frame's ground-truth boxes.
      positives: regions of the key frame that may be positive.
      pair: the frames.
      least: IoU with its ground truth above which a region counts.
    """
    own = jnp.take_along_axis(pair.truth.boxes, positives.truth[..., None], axis=1)
    pairs = (positives.boxes[:, :, None], own[:, :, None])
    overlap = jax.vmap(jax.vmap(box_iou))(*pairs)[..., 0, 0]
    return track_loss(
        embeds,
        reference,
        positives.truth,
        counted=positives.positive & positives.valid & (overlap >= least),
        present=pair.reference_present,
    )
