"""CondInst whose locations also predict the identity of their object.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, and its released code. Letters: P locations, K classes, N
identities, the last one for new objects, D objects per frame.
"""

import functools
from typing import NamedTuple

import jax

from vis_jax.detectors.condinst import MASK_STRIDE, CondInstOutput, mask_logits
from vis_jax.detectors.fcos import Cells, Places, boxes_at, candidates, suppress
from vis_jax.detectors.id_objects import IdObjects, Rank, mix
from vis_jax.losses.fcos import FcosOutput, IdLoss
from vis_jax.ops.bilinear import aligned_upsample
from vis_jax.ops.boxes import clip_boxes
from vis_jax.ops.padding import zero_padding
from vis_jax.typing import Array, Bool, Float32, Int32


class IdRule(NamedTuple):
    """Rule that turns locations into objects.

    Attributes:
      class_threshold: a location's best class must be above this, and ..
      id_threshold: .. its best identity above this.
      iou_threshold: IoU threshold of class-agnostic NMS.
      candidates: most locations per level that enter NMS.
      size: D.
      rank: see the type. Without identities only the class counts.
      ids: loss that trained the identities; softmax has a background.
    """

    class_threshold: float
    id_threshold: float
    iou_threshold: float
    candidates: int
    size: int
    rank: Rank
    ids: IdLoss


def id_probs(logits: Float32[Array, "P _"], *, kind: IdLoss) -> Float32[Array, "P N"]:
    """Returns identity probabilities, without the background of a softmax."""
    if kind == "softmax":
        return jax.nn.softmax(logits, axis=-1)[:, :-1]
    return jax.nn.sigmoid(logits)


class ChosenLocations(NamedTuple):
    """Locations of a frame's objects, best rank first."""

    places: Int32[Array, "D"]
    boxes: Float32[Array, "D 4"]  # in pixels, within the content
    valid: Bool[Array, "D"]


def choose_places(
    out: FcosOutput,
    places: Places,
    size: Int32[Array, "2"],
    *,
    first: Bool[Array, ""],
    cells: Cells,
    rule: IdRule,
) -> ChosenLocations:
    """Selects the locations of one image that become objects.

    Args:
      out: output of the image.
      places: the locations.
      size: height and width of the content in pixels.
      first: whether the image is the first of its video.
      cells: height and width of every level.
      rule: see the type.
    """
    best = jax.nn.sigmoid(out.class_logits).max(axis=1)
    centres = jax.nn.sigmoid(out.centre_logits)
    near = candidates(best * centres, cells, most=rule.candidates)
    ids = id_probs(out.id_logits[near], kind=rule.ids)
    boxes = boxes_at(places.locations[near], out.distances[near])
    boxes = clip_boxes(boxes, size)
    mixed = mix(
        best[near],
        ids,
        first=first,
        rank=rule.rank,
        class_threshold=rule.class_threshold,
        id_threshold=rule.id_threshold,
    )
    kept = suppress(
        boxes,
        mixed.ranks * centres[near],
        valid=mixed.counted,
        iou_threshold=rule.iou_threshold,
        size=rule.size,
    )
    return ChosenLocations(near[kept.chosen], boxes[kept.chosen], kept.valid)


def find_objects(
    out: CondInstOutput,
    places: Places,
    size: Int32[Array, "2"],
    *,
    first: Bool[Array, ""],
    cells: Cells,
    rule: IdRule,
) -> IdObjects:
    """Detects the objects of one image, with masks over the canvas, see `mask_logits`.

    Class scores are probability times centreness.

    Args:
      out: output of the image.
      places, size, first, cells, rule: see `choose_places`.
    """
    dense = out.dense
    found = choose_places(dense, places, size, first=first, cells=cells, rule=rule)
    chosen = found.places
    at = Places(*(x[chosen] for x in places))
    real = functools.partial(zero_padding, valid=found.valid)
    centres = jax.nn.sigmoid(dense.centre_logits[chosen])
    return IdObjects(
        real(found.boxes),
        real(jax.nn.sigmoid(dense.class_logits[chosen]) * centres[:, None]),
        real(id_probs(dense.id_logits[chosen], kind=rule.ids)),
        real(mask_logits(dense.filters[chosen], out.features, at)),
        found.valid,
    )


def pixel_masks(logits: Float32[Array, "D h w"]) -> Bool[Array, "D H W"]:
    """Returns masks over the canvas: upsampled probabilities above 0.5.

    Args:
      logits: see `mask_logits`.
    """
    probs = jax.nn.sigmoid(logits)[..., None]
    return aligned_upsample(probs, MASK_STRIDE)[..., 0] > 0.5
