"""Base class of data sets with tracks in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from data_pipeline.datasets.clip_arrays import clip_of_tracks
from data_pipeline.datasets.dataset import ClipArrays, Video, VideoTruth
from data_pipeline.datasets.ytvis_json import AnnotatedTrack
from vis_jax.formats.rle import Runs, boxes_of_runs, compress_mask, take_runs


class TrackedVideos(ABC):
    """Base class of data sets with tracks in memory.

    A subclass sets the attributes.

    Attributes:
      videos: all videos.
      tracks: tracks of every video.
      runs: masks, which the tracks index.
    """

    videos: tuple[Video, ...]
    tracks: tuple[tuple[AnnotatedTrack, ...], ...]
    runs: Runs

    @abstractmethod
    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Reads frames `frame_ids` of video `index`: RGB uint8 [T, H, W, 3]."""

    def truth(self, index: int) -> VideoTruth:
        """Returns the tracks of video `index` over all its frames."""
        return truth_of(self.videos[index], self.tracks[index], self.runs)

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """Reads frames of video `index` with the masks of their objects.

        Raises:
          DataError: as `read_frames`.
        """
        images = self.read_frames(index, frame_ids)
        video, tracks = self.videos[index], self.tracks[index]
        return clip_of_tracks(images, video, tracks, self.runs, frame_ids)


def truth_of(video: Video, tracks: Sequence[AnnotatedTrack], runs: Runs) -> VideoTruth:
    """Converts the tracks of a video, with masks in `runs`, to `VideoTruth`."""
    shape = (len(tracks), video.length)
    masks = np.array([t.mask_index for t in tracks], np.int32).reshape(shape)
    present = masks >= 0
    boxes = np.zeros((*shape, 4), np.float32)
    seen = take_runs(runs, masks[present])
    boxes[present] = boxes_of_runs(seen, video.height)
    size = dict(height=video.height, width=video.width)
    occlusion = np.array([t.occlusion for t in tracks], np.float32).reshape(shape)
    return VideoTruth(
        labels=np.array([t.label for t in tracks], np.int32),
        track_ids=np.arange(1, len(tracks) + 1, dtype=np.int32),
        crowd=np.array([t.crowd for t in tracks], bool),
        boxes=boxes,
        present=present,
        occlusion=np.where(present, occlusion, np.float32(np.nan)),
        segmentations=tuple(
            tuple(None if k < 0 else compress_mask(runs, int(k), **size) for k in track)
            for track in masks
        ),
    )
