"""Two sets of videos as one to train on, with the categories of both."""

import copy
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from data_pipeline.clip_sampling import ClipPlan, plan_clip, video_extents
from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.coco import match_categories, plain_name
from data_pipeline.datasets.dataset import Category, ClipArrays, Dataset, VideoTruth
from data_pipeline.datasets.ytvis_json import Track
from data_pipeline.settings import Settings


@runtime_checkable
class HasLabels(Protocol):
    """A reader of annotation files, with its categories and tracks in memory."""

    categories: tuple[Category, ...]
    tracks: tuple[tuple[Track, ...], ...]


Reader = TypeVar("Reader", bound=HasLabels)


def join_categories(
    first: Sequence[Category],
    second: Sequence[Category],
    names: Sequence[tuple[str, str]],
) -> tuple[tuple[Category, ...], tuple[int | None, ...]]:
    """The categories of two sets: those of the first, then what the second adds.

    Args:
      first, second: of the sets.
      names: pairs of a category of the second and what the first calls it; "" leaves it
        out. Others are matched by name, upper and lower case, "_" and " " being equal.

    Returns:
      All categories, and the label in them of each of the second; None: left out.
    """
    matched = match_categories(second, first, names)
    left_out = {plain_name(name) for name, other in names if not other}
    categories = list(first)
    labels: list[int | None] = []
    for category in second:
        label = matched[category.category_id]
        if label is None and plain_name(category.name) not in left_out:
            label = len(categories)
            number = 1 + max((one.category_id for one in categories), default=0)
            categories.append(Category(number, category.name))
        labels.append(label)
    return tuple(categories), tuple(labels)


def relabel(
    reader: Reader, categories: tuple[Category, ...], labels: Sequence[int | None]
) -> Reader:
    """A reader with other categories, without the tracks that have none of them.

    Args:
      reader: stays as it is; what it has read is shared.
      categories: of the new reader.
      labels: by label of `reader`, that of the new one; None leaves tracks out.
    """
    new = copy.copy(reader)
    new.categories = categories
    new.tracks = tuple(
        tuple(
            track._replace(label=label)
            for track in tracks
            if (label := labels[track.label]) is not None
        )
        for tracks in reader.tracks
    )
    return new


class JointVideos:
    """The videos of the first set, then those of the second; a `Mixture`.

    Every epoch goes once through the videos of both. Ids of videos may occur twice, so
    it is for training alone.

    Args:
      first, second: sets with the same categories.
      added: how many of the categories are of the second alone.
    """

    def __init__(self, first: Dataset, second: Dataset, *, added: int) -> None:
        self._parts = first, second
        self._added = added
        self.categories = first.categories
        self.videos = first.videos + second.videos
        self._extents = video_extents(self)

    def summary(self) -> str:
        """How many videos of each set there are, and which categories were added."""
        first, second = (len(part.videos) for part in self._parts)
        known = len(self.categories) - self._added
        added = ", ".join(one.name for one in self.categories[known:]) or "none"
        return f"{first} and {second} of the second set; categories it adds: {added}"

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """As `Dataset.read_frames`."""
        part, index = self._place(index)
        return self._parts[part].read_frames(index, frame_ids)

    def truth(self, index: int) -> VideoTruth:
        """As `Dataset.truth`."""
        part, index = self._place(index)
        return self._parts[part].truth(index)

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """As `Dataset.read_clip`."""
        part, index = self._place(index)
        return self._parts[part].read_clip(index, frame_ids)

    def clip_sources(self, frames: int) -> tuple[ClipSource, ...]:
        """As `Mixture.clip_sources`."""
        # TensorFlow takes seconds to import; evaluation does without it.
        from data_pipeline.clip_sources import source_of

        return tuple(source_of(part, frames) for part in self._parts)

    def plan_clip(self, seed: int, position: int, clips: Settings) -> ClipPlan:
        """As `Mixture.plan_clip`."""
        plan = plan_clip(seed, position, self._extents, clips)
        part, video = self._place(plan.video)
        return plan._replace(part=part, video=video)

    def _place(self, index: int) -> tuple[int, int]:
        """The set that a video is of, and its position there."""
        count = len(self._parts[0].videos)
        return (0, index) if index < count else (1, index - count)
