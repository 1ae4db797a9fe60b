"""Input types of the metrics: videos, annotated tracks, predicted tracks.

A segmentation is a list with one entry for each frame: compressed run lengths
{"size": [H, W], "counts": bytes} as pycocotools takes them, or None if absent.
"""

from collections import Counter
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

# Id of a video or category: an integer; in irregular files any number or text.
Id = int | float | str

MAX_PREDICTIONS = (1, 10, 100)  # predictions scored per video and category


class TruthVideo(NamedTuple):
    """A video of the truth file."""

    video_id: Id
    name: str
    height: int  # pixels
    width: int
    length: int  # frames; 0: the file does not say


@runtime_checkable
class Track(Protocol):
    """Interface shared by annotated and predicted tracks."""

    @property
    def category_id(self) -> Id: ...

    @property
    def segmentations(self) -> list[dict | None]: ...

    @property
    def areas(self) -> np.ndarray: ...


class TruthTrack(NamedTuple):
    """One annotated object over the frames of a video."""

    track_id: int | float
    video_id: Id
    category_id: Id
    crowd: bool
    segmentations: list[dict | None]
    areas: np.ndarray  # int64[T], pixels, counted from the masks; 0 where absent
    mean_area: float  # pixels, mean of the nonzero `areas` in the file
    occlusion: float | None  # mean weight of the more occluded half; OVIS only


class ResultTrack(NamedTuple):
    """One predicted object over the frames of a video."""

    position: int  # index in the file, from 0
    video_id: Id
    category_id: Id
    score: float
    segmentations: list[dict | None]
    areas: np.ndarray  # int64[T], pixels; 0 where absent
    mean_area: float  # pixels, over the frames with any


class TruthFile(NamedTuple):
    """Content of a ground-truth file; `tracks` are in file order."""

    name: str
    videos: dict[Id, TruthVideo]
    categories: dict[Id, str]
    tracks: list[TruthTrack]  # including unknown videos and categories
    tolerated: Counter  # number of tolerated defects by kind


class Results(NamedTuple):
    """Content of a results file; `tracks` are in file order."""

    name: str
    tracks: list[ResultTrack]
    tolerated: Counter  # number of tolerated defects by kind


def mean_nonzero(areas: np.ndarray) -> float:
    """Mean over the frames with an area; 0 if there are none."""
    present = areas[areas != 0]
    return float(present.mean()) if len(present) else 0.0


def means_nonzero(areas: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """`mean_nonzero` of several tracks: float64[n].

    Args:
      areas: int64, of all frames of the tracks, one track after the other.
      stops: int64[n], where each track ends.
    """
    # Sums of pixels are exact, so that the order of additions has no effect.
    totals = [np.concatenate([[0], np.cumsum(x)])[stops] for x in (areas, areas != 0)]
    sums, counts = (np.diff(total, prepend=0) for total in totals)
    return sums / np.maximum(counts, 1)
