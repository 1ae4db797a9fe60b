"""Joins two sets of videos for training, with the categories of both."""

import copy
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from data_pipeline.clip_sampling import ClipPlan, plan_clip, video_extents
from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.coco import match_categories, plain_name
from data_pipeline.datasets.dataset import Category, ClipArrays, Dataset, VideoTruth
from data_pipeline.datasets.ytvis_json import AnnotatedTrack
from data_pipeline.settings import Settings


@runtime_checkable
class HasLabels(Protocol):
    """A reader of annotation files with categories and tracks in memory."""

    categories: tuple[Category, ...]
    tracks: tuple[tuple[AnnotatedTrack, ...], ...]


Reader = TypeVar("Reader", bound=HasLabels)


def join_categories(
    first: Sequence[Category],
    second: Sequence[Category],
    names: Sequence[tuple[str, str]],
) -> tuple[tuple[Category, ...], tuple[int | None, ...]]:
    """Joins the categories of two sets: the first set's, then those the second adds.

    Args:
      first, second: categories of the sets.
      names: pairs (category of the second, its name in the first); "" drops it. Others
        are matched by name, ignoring case and treating "_" as " ".

    Returns:
      All categories, and the joint label of each category of the second; None: dropped.
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
    """Returns a reader with other categories, dropping tracks outside them.

    Args:
      reader: not modified; its data are shared.
      categories: categories of the new reader.
      labels: new label by label of `reader`; None drops tracks.
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
    """`Mixture` of the videos of a first and a second set.

    Every epoch visits the videos of both once. Video ids may be duplicated, so use it
    for training only.

    Args:
      first, second: sets with the same categories.
      added: number of categories only in the second set.
    """

    def __init__(self, first: Dataset, second: Dataset, *, added: int) -> None:
        self._parts = first, second
        self._added = added
        self.categories = first.categories
        self.videos = first.videos + second.videos
        self._extents = video_extents(self)

    def summary(self) -> str:
        """Summarises the videos of each set and the added categories."""
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
        # Imported here: slow, and evaluation does not need TensorFlow.
        from data_pipeline.clip_sources import source_of

        return tuple(source_of(part, frames) for part in self._parts)

    def plan_clip(self, seed: int, position: int, clips: Settings) -> ClipPlan:
        """As `Mixture.plan_clip`."""
        plan = plan_clip(seed, position, self._extents, clips)
        part, video = self._place(plan.video)
        return plan._replace(part=part, video=video)

    def _place(self, index: int) -> tuple[int, int]:
        """Returns the set of a video, and its index there."""
        count = len(self._parts[0].videos)
        return (0, index) if index < count else (1, index - count)
