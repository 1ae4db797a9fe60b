"""Assigns identities to unlinked labels by frame-to-frame overlap.

As in the IoU tracker, `trackers.iou.link`, a label joins the recent track of its
category that it overlaps most, or starts one. Crossing objects may swap identities and
objects absent for long get new ones, so check the result.

The overlap is the mean of mask IoU and box IoU: a thin ring that moves by its width
shares no pixel with itself, and boxes alone confuse nested objects.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.structures import Detections
from vis_jax.trackers.iou import Settings, link
from vis_jax.trackers.track_bank import TrackBank, empty_bank

if TYPE_CHECKING:
    from data_pipeline.convert.foreign import ForeignLabel

_LEAST = 8  # sizes are powers of two from here, to limit compilations


class LabelLinker:
    """An `IdentityLinker` of data_pipeline.convert.foreign.

    Args:
      min_iou: minimum overlap of a label with the last label of its track, in (0, 1].
      max_gap: frames a track survives without its object, 0 or more.

    Raises:
      ValueError: a value is out of range.
    """

    def __init__(self, min_iou: float = 0.1, max_gap: int = 2) -> None:
        if not 0 < min_iou <= 1:
            raise ValueError(f"min_iou: expected a number in (0, 1], got {min_iou}")
        if max_gap < 0:
            raise ValueError(f"max_gap: expected 0 or more frames, got {max_gap}")
        self._max_gap = max_gap
        settings = Settings(min_iou=min_iou, filter_first=True, losers="new")
        self._link = jax.jit(partial(link, settings=settings))

    def __call__(self, labels: "Sequence[ForeignLabel]", /) -> list[int]:
        """Returns an id per label: 1, 2, .. in order of first appearance."""
        categories = sorted({label.category for label in labels})
        frames: dict[int, list[int]] = {}
        for k, label in enumerate(labels):
            frames.setdefault(label.frame, []).append(k)
        slots = _size(len(labels))  # each label may start a track
        width = _size(max(map(len, frames.values()), default=0))
        bank, identities = empty_bank(slots, 0), [0] * len(labels)
        last: "dict[int, ForeignLabel]" = {}  # last label of each track
        for frame in sorted(frames):
            members = frames[frame]
            last = {
                track: label
                for track, label in last.items()
                if frame - label.frame <= self._max_gap + 1
            }
            found = [labels[k] for k in members]
            overlaps = np.zeros((width, slots), np.float32)
            rows = _overlaps(found, list(last.values()))
            columns = np.array([track - 1 for track in last], np.int32)
            overlaps[: len(found), columns] = rows
            numbers = [categories.index(label.category) for label in found]
            bank, tracks = self._step(bank, numbers, overlaps)
            for k, track in zip(members, tracks, strict=True):
                identities[k] = track
                last[track] = labels[k]
        return identities

    def _step(
        self, bank: TrackBank, numbers: list[int], overlaps: np.ndarray
    ) -> tuple[TrackBank, list[int]]:
        """Returns the track bank updated by a frame, and the track of each object."""
        width, count = len(overlaps), len(numbers)
        labels = np.zeros(width, np.int32)
        labels[:count] = numbers
        detections = Detections(
            boxes=jnp.zeros((width, 4)),
            scores=jnp.ones(width),
            labels=jnp.asarray(labels),
            valid=jnp.arange(width) < count,
            embeds=jnp.zeros((width, 0)),
            descriptors=jnp.zeros((width, 0)),
            mask_logits=jnp.zeros((width, 0, 0)),
        )
        bank, tracks = self._link(bank, detections, jnp.asarray(overlaps))
        return bank, [int(track) for track in np.asarray(tracks)[:count]]


def _overlaps(
    found: "Sequence[ForeignLabel]", before: "Sequence[ForeignLabel]"
) -> np.ndarray:
    """Returns the overlap [N, M] in [0, 1]; 0 between different categories."""
    from pycocotools import mask as coco_mask

    if not found or not before:
        return np.zeros((len(found), len(before)))
    masks = [[label.mask for label in labels] for labels in (found, before)]
    boxes = [coco_mask.toBbox(some) for some in masks]
    none = [0] * len(before)  # none is a crowd
    overlaps = (coco_mask.iou(*masks, none) + coco_mask.iou(*boxes, none)) / 2
    same = [[one.category == two.category for two in before] for one in found]
    return np.where(same, overlaps, 0)


def _size(count: int) -> int:
    """Returns the smallest power of two >= `count` and >= _LEAST."""
    return max(_LEAST, 1 << max(0, count - 1).bit_length())
