"""The interface of data sets: videos, categories, frames, truth and clips, in NumPy."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Category(NamedTuple):
    """A class; its label is its position in `Dataset.categories`."""

    category_id: int  # as in the annotation file
    name: str


class Video(NamedTuple):
    """Facts about a video that are known before its frames are read."""

    video_id: int
    name: str
    height: int  # pixels
    width: int
    length: int  # frames
    file_names: tuple[str, ...]  # relative to JPEGImages/, one per frame


class VideoTruth(NamedTuple):
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


class ClipArrays(NamedTuple):
    """Some frames of a video with the masks of its objects; N objects, T frames."""

    images: np.ndarray  # uint8 [T, H, W, 3], RGB
    masks: np.ndarray  # bool [N, T, H, W], visible pixels; empty where absent
    labels: np.ndarray  # int32 [N], 0 .. K - 1
    track_ids: np.ndarray  # int32 [N], 1, 2, .., as in `VideoTruth`


@runtime_checkable
class Dataset(Protocol):
    """A set of annotated videos: all that training, evaluation and prediction need.

    An object with these members is a data set, whatever its class; see docs/data.md,
    "A data set of your own". `index` is a position in `videos`, frames count from 0.
    """

    categories: tuple[Category, ...]  # a label is a position in them
    videos: tuple[Video, ...]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Frames `frame_ids`, int [T], of a video: uint8 [T, H, W, 3], RGB.

        Several threads may call it at once, for different videos.

        Raises:
          DataError: names the file and the video of a frame that cannot be read.
        """
        ...

    def truth(self, index: int) -> VideoTruth:
        """The tracks of a video over all its frames; none if it is not annotated."""
        ...

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """Reads a training clip: frames, which may repeat, and masks of objects.

        Without crowds; objects that no frame shows may be left out. `clip_of_truth`
        makes it from the other members, for data sets that have no shorter way.
        """
        ...


def check_dataset(dataset: object) -> None:
    """Raises ValueError, with what is missing, unless it is a `Dataset`."""
    members = ("categories", "videos", "read_frames", "truth", "read_clip")
    missing = [name for name in members if not hasattr(dataset, name)]
    if missing:
        raise ValueError(
            f"dataset: expected {', '.join(members)}, got {type(dataset).__name__}"
            f" without {', '.join(missing)}"
        )
