"""Final result of a system for one frame of a video."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from vis_jax.results.clock import NO_CLOCK, Clock


class LiveTracks(NamedTuple):
    """Tracks of a system after a clip.

    A track that is missing after a later clip has ended; its id is never reused.
    """

    ids: np.ndarray  # int32 [S], 1, 2, ..
    class_probs: np.ndarray  # float32 [S, K], for the video so far
    lost: int = 0  # objects that found no free slot, so far


class FrameResult(NamedTuple):
    """Objects of one final frame, at its original size."""

    frame: int  # index in the video
    tracks: LiveTracks
    rows: np.ndarray  # int [n], indices into `tracks` of those with a mask here
    segmentations: list[dict]  # n RLE masks {"size": [H, W], "counts": bytes}
    # Height and width of the frame; needed if there is no mask to read them from.
    size: tuple[int, int] = (0, 0)

    @property
    def ids(self) -> np.ndarray:
        """Track ids: int32 [n], 1, 2, .."""
        return self.tracks.ids[self.rows]

    @property
    def labels(self) -> np.ndarray:
        """Best class of each track so far: int32 [n]."""
        return self.tracks.class_probs[self.rows].argmax(axis=1).astype(np.int32)

    @property
    def scores(self) -> np.ndarray:
        """Probability of that class so far: float32 [n]."""
        return self.tracks.class_probs[self.rows].max(axis=1)

    @property
    def boxes(self) -> np.ndarray:
        """Bounding boxes of the masks: float32 [n, 4], x1 y1 x2 y2 in pixels."""
        return boxes_of(self.segmentations)

    @property
    def masks(self) -> np.ndarray:
        """Decoded masks: bool [n, H, W]."""
        return masks_of(self.segmentations, self.size)


def boxes_of(segmentations: list[dict]) -> np.ndarray:
    """Returns the bounding boxes of masks.

    Args:
      segmentations: n RLE masks {"size": [H, W], "counts": bytes or str}.

    Returns:
      float32 [n, 4], x1 y1 x2 y2 in pixels; zeros for an empty mask.
    """
    from pycocotools import mask as coco_mask

    if not segmentations:
        return np.zeros((0, 4), np.float32)
    corner, size = np.split(coco_mask.toBbox(segmentations), 2, axis=1)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def masks_of(segmentations: list[dict], size: tuple[int, int]) -> np.ndarray:
    """Decodes RLE masks.

    Args:
      segmentations: n RLE masks {"size": [H, W], "counts": bytes or str}.
      size: height and width of the result if n is 0.

    Returns:
      bool [n, H, W].
    """
    from pycocotools import mask as coco_mask

    if not segmentations:
        return np.zeros((0, *size), bool)
    # pycocotools decodes to [H, W, n] in column-major order, so this is a view.
    return np.moveaxis(coco_mask.decode(segmentations), 2, 0).view(bool)


def without_overlap(segmentations: list[dict]) -> list[dict | None]:
    """Removes from each mask the pixels of earlier masks.

    Args:
      segmentations: n RLE masks {"size": [H, W], "counts": bytes or str}.

    Returns:
      n RLE masks; None for a mask that becomes empty.
    """
    from pycocotools import mask as coco_mask

    left: list[dict | None] = []
    taken = None
    for rle in segmentations:
        own = rle
        if taken is not None:
            # The union of both, minus the pixels already taken.
            both = coco_mask.decode(coco_mask.merge([taken, rle]))
            own = coco_mask.encode(both - coco_mask.decode(taken))
        taken = rle if taken is None else coco_mask.merge([taken, rle])
        left.append(own if coco_mask.area(own) else None)
    return left


@runtime_checkable
class Stream(Protocol):
    """Tracks the objects of one video while its frames are read."""

    def __call__(
        self, frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        """Yields the result of every frame in order, once it is final.

        Args:
          frames: uint8 [H, W, 3] in order, all of one size. They are read in another
            thread; only resized copies of one clip are kept, or of the whole video if
            that is the system's window.
          clock: times the parts reading, compiling, model and masks.
        """
        ...
