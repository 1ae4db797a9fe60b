"""The first videos of a data set."""

import numpy as np

from data_pipeline.datasets.dataset import ClipArrays, Dataset, VideoTruth


class FirstVideos:
    """The first `count` videos of a data set; all of them if `count` is 0.

    Raises:
      ValueError: `count` is negative.
    """

    def __init__(self, dataset: Dataset, count: int) -> None:
        if count < 0:
            raise ValueError(f"videos: expected 0 (all) or more, got {count}")
        self._dataset = dataset
        self.categories = dataset.categories
        self.videos = dataset.videos[: count or None]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """As `Dataset.read_frames`."""
        return self._dataset.read_frames(index, frame_ids)

    def truth(self, index: int) -> VideoTruth:
        """As `Dataset.truth`."""
        return self._dataset.truth(index)

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """As `Dataset.read_clip`."""
        return self._dataset.read_clip(index, frame_ids)
