"""Training of a track head on any detector, by pairs of frames.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, sections 3.2 and 4. A detector
has features of frames and a function that embeds boxes in them; it need not have
proposals. What the head learns to recognise are the true boxes of the key frame, which
are also among the proposals of MaskTrack R-CNN, and the objects that the detector finds
there, as at test time. Letters: B clips, T frames, I = B T images, M true objects, N
objects found in a frame, R = N + M regions, S sampled regions, E numbers of an
embedding.
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
        """Returns what regions are compared by.

        Args:
          features: of images, one for each row of boxes.
          boxes: x1 y1 x2 y2 in canvas pixels.
        """
        ...


class Found(NamedTuple):
    """Objects that a detector finds in images."""

    boxes: Float32[Array, "*lead N 4"]  # in canvas pixels
    valid: Bool[Array, "*lead N"]


class Regions(NamedTuple):
    """Parts of images that train a track head: objects found, then true boxes."""

    boxes: Float32[Array, "*lead R 4"]
    truth: Int32[Array, "*lead R"]  # the true object of the highest IoU
    counted: Bool[Array, "*lead R"]  # that IoU is high enough


def regions_of(
    found: Found,
    boxes: Float32[Array, "M 4"],
    present: Bool[Array, "M"],
    *,
    least: float,
) -> Regions:
    """The regions of one image.

    Args:
      found: objects of the image.
      boxes, present: true objects.
      least: IoU with a true object from which a region counts.
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
    found: Found,
    batch: Batch,
    *,
    roles: Roles,
    least: float,
) -> Float32[Array, ""]:
    """Loss of assigning key regions to objects of the reference frame; Eq. 2.

    Args:
      embed: the track head.
      features: of all frames, arrays [I ..]; the loss has a gradient in them.
      found: objects of the key frames, [B N]; it has none in these.
      batch: clips with their truth.
      roles: the key frame and the reference frame of each clip.
      least: IoU with a true object from which a region counts.
    """
    rows = jnp.arange(len(roles.key))
    present = batch.present & batch.instance_valid[..., None]
    present &= batch.frame_valid[:, None]
    there = present[rows, :, roles.reference]

    def one(found: Found, boxes: Array, present: Array) -> Regions:
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
        present=there,
    )


def region_track_loss(
    embeds: Float32[Array, "B S E"],
    reference: Float32[Array, "B M E"],
    positives: RegionTargets,
    pair: Pair,
    *,
    least: float,
) -> Float32[Array, ""]:
    """Loss of assigning positive regions to objects of the reference frame; Eq. 2.

    For detectors with proposals, whose samples are matched with the truth already.

    Args:
      embeds: of the regions.
      reference: of the true boxes of the reference frame.
      positives: regions of the key frame that may be positive.
      pair: the frames.
      least: IoU with its truth from which a region counts.
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
