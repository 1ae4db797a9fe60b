"""Joint training on videos and images."""

import math
from typing import NamedTuple

import numpy as np

from data_pipeline.augment.pseudo_clip import ViewLimits, draw_views
from data_pipeline.clip_sampling import ClipPlan, generator, plan_clip, video_extents
from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.coco import CocoImages
from data_pipeline.datasets.dataset import ClipArrays, Dataset, VideoTruth
from data_pipeline.settings import Settings

_EPOCH, _CLIP, _VIEWS = 2, 3, 4  # distinct from the random streams of videos


class JointClips:
    """Videos followed by images (one-frame videos) with the same categories.

    Args:
      videos: None if there are only images.
      stills: the images, which become pseudo-clips in training.
      share: fraction of clips made from images, 0 to 1.
      motion: limits of the motion of an image.

    Raises:
      ValueError: `share` is outside 0 to 1, or excludes the videos or images.
    """

    def __init__(
        self,
        videos: Dataset | None,
        stills: CocoImages,
        *,
        share: float,
        motion: ViewLimits,
    ) -> None:
        fine = share == 1 if videos is None else 0 < share < 1
        if isinstance(share, bool) or not fine:
            expected = "1 without videos" if videos is None else "more than 0, below 1"
            raise ValueError(f"data.stills.share: expected {expected}, got {share!r}")
        self.clips, self.stills = videos, stills
        self.share, self.motion = float(share), motion
        self.categories = stills.categories
        self._count = 0 if videos is None else len(videos.videos)
        self.videos = (() if videos is None else videos.videos) + stills.videos
        extents = video_extents(self)
        self._extents = extents[: self._count], extents[self._count :]

    def summary(self) -> str:
        """Summarises the images and what was dropped."""
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

    def truth(self, index: int) -> VideoTruth:
        """As `Dataset.truth`."""
        dataset, index = self._owner(index)
        return dataset.truth(index)

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """As `Dataset.read_clip`; an image does not move here."""
        dataset, index = self._owner(index)
        return dataset.read_clip(index, frame_ids)

    def clip_sources(self, frames: int) -> tuple[ClipSource, ...]:
        """As `Mixture.clip_sources`: that of the images is the last."""
        # Imported here: slow, and evaluation does not need TensorFlow.
        from data_pipeline.clip_sources import StillSource, source_of

        stills = StillSource(self.stills, frames)
        return (
            (stills,) if self.clips is None else (source_of(self.clips, frames), stills)
        )

    def plan_clip(self, seed: int, position: int, clips: Settings) -> ClipPlan:
        """As `Mixture.plan_clip`."""
        still, number = place_of(position, self.share)
        videos, stills = self._extents
        if not still:
            return plan_clip(seed, number, videos, clips)
        plan = plan_still(seed, number, stills, clips, self.motion)
        return plan._replace(part=0 if self.clips is None else 1)

    def _owner(self, index: int) -> tuple[Dataset, int]:
        if self.clips is not None and index < self._count:
            return self.clips, index
        return self.stills, index - self._count


class Place(NamedTuple):
    """Position of a clip in the stream of videos or images."""

    still: bool
    number: int  # count of earlier clips of the same kind


def place_of(position: int, share: float) -> Place:
    """Spreads image clips evenly: any run of clips has the share, within one clip.

    Args:
      position: index of the clip over all hosts, from 0.
      share: fraction of image clips.
    """
    before = math.floor(position * share)
    still = math.floor((position + 1) * share) > before
    return Place(still, before if still else position - before)


def plan_still(
    seed: int, position: int, extents: np.ndarray, config: Settings, motion: ViewLimits
) -> ClipPlan:
    """Draws the clip at one position of the image stream, like `plan_clip`.

    An image is planned as a video of one frame; the views of it make the clip.
    """
    clip = plan_clip(seed, position, extents, config, streams=(_EPOCH, _CLIP))
    rng = generator(_VIEWS, seed, position)
    return clip._replace(
        frame_ids=np.zeros(config.frames, np.int32),
        views=draw_views(rng, config.frames, motion),
    )
