"""Videos and images to train on together."""

import numpy as np

from data_pipeline.augment.pseudo_clip import Motion
from data_pipeline.datasets.coco import CocoImages
from data_pipeline.datasets.dataset import Dataset, Truth


class JointClips:
    """Videos first, then images, each a video of one frame, with the same categories.

    Args:
      videos: None if there are only images.
      stills: the images; in training they are set in motion.
      share: of the clips that are made of images, 0 to 1.
      motion: how far an image moves.

    Raises:
      ValueError: a share beyond 0 to 1, or one that leaves out the videos or images.
    """

    def __init__(
        self,
        videos: Dataset | None,
        stills: CocoImages,
        *,
        share: float,
        motion: Motion,
    ):
        fine = share == 1 if videos is None else 0 < share < 1
        if isinstance(share, bool) or not fine:
            expected = "1 without videos" if videos is None else "more than 0, below 1"
            raise ValueError(f"data.stills.share: expected {expected}, got {share!r}")
        self.clips, self.stills = videos, stills
        self.share, self.motion = float(share), motion
        self.categories = stills.categories
        self._count = 0 if videos is None else len(videos.videos)
        self.videos = (() if videos is None else videos.videos) + stills.videos

    def summary(self) -> str:
        """How many images there are, and what of them was left out."""
        stills = self.stills
        objects = sum(map(len, stills.tracks))
        text = f"{len(stills.videos)} images with {objects} objects"
        if stills.left_out:
            names = ", ".join(f"{k} ({n})" for k, n in stills.left_out.items())
            text += f"; left out: {stills.images_left_out} images without these,"
            text += f" objects of {len(stills.left_out)} categories: {names}"
        return text

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """As `Dataset.read_frames`; an image does not move here."""
        dataset, index = self._owner(index)
        return dataset.read_frames(index, frame_ids)

    def truth(self, index: int) -> Truth:
        """As `Dataset.truth`."""
        dataset, index = self._owner(index)
        return dataset.truth(index)

    def _owner(self, index: int) -> tuple[Dataset, int]:
        if self.clips is not None and index < self._count:
            return self.clips, index
        return self.stills, index - self._count
