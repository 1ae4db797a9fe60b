"""Identities as channels: assigns ids to objects in training and across frames.

Zhu et al., "Instance As Identity: A Generic Online Paradigm for Video Instance
Segmentation", ECCV 2022, sections 3.2 to 3.4, and the released code. There are N ids: 0
.. N - 2 for objects, N - 1 for new objects; N means none. Letters: M objects per
sequence, D detections per frame, best first.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import hungarian
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray, UInt8

# In id maps, which are uint8: a pixel that activates no channel, not even background.
BLANK = 255
MOST_IDS = 254  # N; the background, which is N, must differ from BLANK
_LEAST_VISIBLE = 0.1  # fraction of a mask's area, as in the released code

# Behaviour when all ids are assigned. paper: further objects are discarded; code: they
# share the last id; only the last of them is painted and none is output.
Capacity = Literal["paper", "code"]


class SequenceIds(NamedTuple):
    """Ids of a training sequence."""

    ids: Int32[Array, "M"]  # N where an object has none
    kept: Bool[Array, "M"]  # objects with an id
    targets: Int32[Array, "T M"]  # targets of the id head; N where absent
    dropped: Int32[Array, ""]  # objects beyond the number of ids


def sequence_ids(
    track_ids: Int32[Array, "M"],
    present: Bool[Array, "M T"],
    *,
    count: int,
    key: PRNGKeyArray | None = None,
) -> SequenceIds:
    """Returns ids in track id order, and targets: "new" in the first frame.

    Later frames have the object's own id, also after an absence. Objects in no frame
    take no id. Beyond N - 1 objects, those with the largest track ids get none.

    Args:
      track_ids: distinct among present objects.
      present: False where an object is absent or the frame is padding.
      count: N.
      key: draws distinct random ids instead; None: 0, 1, .. as in the source.
    """
    seen = present.any(axis=1)
    rank = (seen[None] & (track_ids[None] < track_ids[:, None])).sum(axis=1)
    kept = seen & (rank < count - 1)
    ids = rank
    if key is not None:
        ids = jax.random.permutation(key, count - 1)[jnp.minimum(rank, count - 2)]
    ids = jnp.where(kept, ids, count).astype(jnp.int32)
    first = present.argmax(axis=1)
    frames = jnp.arange(present.shape[1])
    targets = jnp.where(frames[:, None] == first[None], count - 1, ids[None])
    targets = jnp.where(present.T & kept[None], targets, count).astype(jnp.int32)
    return SequenceIds(ids, kept, targets, (seen & ~kept).sum().astype(jnp.int32))


def truth_map(
    masks: Bool[Array, "M H W"],
    ids: Int32[Array, "M"],
    valid: Bool[Array, "M"],
    *,
    background: int,
) -> UInt8[Array, "H W"]:
    """Returns the training id map; overlaps belong to the smallest mask.

    For masks of equal size, to the first.

    Args:
      ids: ids of the objects; all 0 for a bank with only objects and background.
      valid: objects to paint.
      background: N, or 1 for such a bank.
    """
    masks = masks & valid[:, None, None]
    size = masks.sum(axis=(1, 2)).argsort(stable=True).argsort()
    size = size.astype(jnp.int32)[:, None, None]
    owner = jnp.where(masks, size, len(masks)).argmin(axis=0)
    found = jnp.where(masks.any(axis=0), ids[owner], background)
    return found.astype(jnp.uint8)


def detection_map(
    visible: Bool[Array, "D H W"],
    ids: Int32[Array, "D"],
    valid: Bool[Array, "D"],
    *,
    background: int,
) -> UInt8[Array, "H W"]:
    """Returns the id map at test time, from disjoint masks.

    If several detections share an id, as only the rule `code` allows, the last one is
    painted and the pixels of the others are `BLANK`.

    Args:
      visible: see `DisjointMasks`.
      ids, valid: ids and validity of the painted detections; see `AssignedIds`.
      background: N, or 1 for a bank without ids, whose ids are all 0. Use `truth_map`
        for such a bank: here all but one detection would be blank.
    """
    later = jnp.triu(jnp.ones((len(ids), len(ids)), bool), 1)
    replaced = (later & (ids[:, None] == ids[None]) & valid[None]).any(axis=1)
    shown = jnp.where(replaced, BLANK, ids)
    visible = visible & valid[:, None, None]
    owner = visible.argmax(axis=0)
    found = jnp.where(visible.any(axis=0), shown[owner], background)
    return found.astype(jnp.uint8)


def blank_map(height: int, width: int) -> UInt8[Array, "{height} {width}"]:
    """Returns the id map before the first frame: blank everywhere."""
    return jnp.full((height, width), BLANK, jnp.uint8)


class DisjointMasks(NamedTuple):
    """Disjoint masks."""

    masks: Bool[Array, "D H W"]
    kept: Bool[Array, "D"]  # detections with enough visible pixels


def visible_masks(
    masks: Bool[Array, "D H W"], valid: Bool[Array, "D"]
) -> DisjointMasks:
    """Assigns every pixel to its best detection, and drops hidden detections.

    A detection with less than a tenth of its area left is dropped, but still occludes
    others, as in the released code.

    Args:
      masks: best first.
      valid: False marks padding.
    """
    masks = masks & valid[:, None, None]
    first = masks.argmax(axis=0)
    visible = masks & (first[None] == jnp.arange(len(masks))[:, None, None])
    area, left = (x.sum(axis=(1, 2)).astype(jnp.float32) for x in (masks, visible))
    kept = (area > 0) & (left / jnp.maximum(area, 1.0) >= _LEAST_VISIBLE)
    return DisjointMasks(visible & kept[:, None, None], kept)


def unique_ids(
    scores: Float32[Array, "D N"], valid: Bool[Array, "D"]
) -> Int32[Array, "D"]:
    """Assigns a column to each detection so that the total score is largest.

    Columns 0 .. N - 1 are those of `scores`, each for at most one detection; N means
    none, with score 0; later columns are extra slots for new objects, so that all
    detections may be new. Sigmoid scores are used as they are, without a threshold.

    Args:
      scores: probabilities of the id head.
      valid: False marks padding, whose columns are meaningless.
    """
    count = scores.shape[1]
    further = jnp.repeat(scores[:, count - 1 :], len(scores) - 1, axis=1)
    none = jnp.zeros_like(scores[:, :1])
    columns = jnp.concatenate([scores, none, further], axis=1)
    return hungarian(-columns.T, valid)


class AssignedIds(NamedTuple):
    """Ids assigned in a frame."""

    ids: Int32[Array, "D"]  # N for none
    valid: Bool[Array, "D"]  # detections with an id, to paint and score
    new: Bool[Array, "D"]  # detections that got a new id
    issued: Int32[Array, ""]  # ids assigned so far; outputs are below it
    lost: Int32[Array, ""]  # new objects of this frame without an id


def issue_ids(
    columns: Int32[Array, "D"],
    valid: Bool[Array, "D"],
    issued: Int32[Array, ""],
    *,
    count: int,
    capacity: Capacity,
) -> AssignedIds:
    """Returns ids of known objects, and fresh ones for new objects, without repeats.

    A column that is not an assigned id means a new object, so in the first frame all
    are new. An object without an id is lost again in every frame where it is detected:
    the maximum per frame, not the sum, counts lost objects.

    Args:
      columns: see `unique_ids`.
      valid: detections.
      issued: ids assigned before this frame.
      count: N. `paper` assigns N - 1 ids, `code` N - 2.
      capacity: see the type.
    """
    last = count - 2
    new = valid & (columns >= issued)
    place = issued + jnp.cumsum(new).astype(jnp.int32) - 1
    found = new.sum().astype(jnp.int32)
    if capacity == "paper":
        lost = new & (place > last)
        given, issued = valid & ~lost, jnp.minimum(issued + found, last + 1)
    else:
        lost = new & (place >= last)
        given, issued = valid, jnp.minimum(issued + found, last)
    ids = jnp.where(new, jnp.minimum(place, last), columns)
    ids = jnp.where(given, ids, count).astype(jnp.int32)
    return AssignedIds(ids, given, new & given, issued, lost.sum().astype(jnp.int32))
