"""What every data set offers: videos, categories, frames and truth, in NumPy."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Category(NamedTuple):
    """A class; its label is its position in `Dataset.categories`."""

    category_id: int  # as in the annotation file
    name: str


class Video(NamedTuple):
    """What is known of a video before its frames are read."""

    video_id: int
    name: str
    height: int  # pixels
    width: int
    length: int  # frames
    file_names: tuple[str, ...]  # relative to JPEGImages/, one per frame


class Truth(NamedTuple):
    """The annotated tracks of one video; M tracks, T frames."""

    labels: np.ndarray  # int32 [M], 0 .. K - 1
    track_ids: np.ndarray  # int32 [M], 1, 2, ..: the position within the video + 1
    crowd: np.ndarray  # bool [M]
    boxes: np.ndarray  # float32 [M, T, 4], x1 y1 x2 y2 in pixels; 0 where absent
    present: np.ndarray  # bool [M, T]
    occlusion: np.ndarray  # float32 [M, T], hidden share in [0, 1]; NaN = unknown
    # [M][T] run lengths {"size": [H, W], "counts": bytes} as pycocotools writes them;
    # None where absent.
    segmentations: tuple[tuple[dict | None, ...], ...]


@runtime_checkable
class Dataset(Protocol):
    """A set of annotated videos."""

    categories: tuple[Category, ...]
    videos: tuple[Video, ...]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Frames `frame_ids` of video `index`: uint8 [T, H, W, 3], RGB."""
        ...

    def truth(self, index: int) -> Truth:
        """The tracks of video `index` over all its frames."""
        ...
