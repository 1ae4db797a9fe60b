"""Interface of data sets: videos, categories, frames, ground truth, clips, in NumPy."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Category(NamedTuple):
    """A class; its label is its position in `Dataset.categories`."""

    category_id: int  # as in the annotation file
    name: str


class Video(NamedTuple):
    """Metadata of a video, known before its frames are read."""

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
    occlusion: np.ndarray  # float32 [M, T], occluded fraction, 0 .. 1; NaN = unknown
    # [M][T] run lengths {"size": [H, W], "counts": bytes} as pycocotools writes them;
    # None where absent.
    segmentations: tuple[tuple[dict | None, ...], ...]


class ClipArrays(NamedTuple):
    """Frames of a video with the masks of its objects; N objects, T frames."""

    images: np.ndarray  # uint8 [T, H, W, 3], RGB
    masks: np.ndarray  # bool [N, T, H, W], visible pixels; empty where absent
    labels: np.ndarray  # int32 [N], 0 .. K - 1
    track_ids: np.ndarray  # int32 [N], 1, 2, .., as in `VideoTruth`


@runtime_checkable
class Dataset(Protocol):
    """A set of annotated videos for training, evaluation and prediction.

    Any object with these members is a data set; see docs/data.md,
    "Your own data set class". `index` is an index into `videos`; frames count from 0.
    """

    categories: tuple[Category, ...]  # indexed by label
    videos: tuple[Video, ...]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Reads frames `frame_ids`, int [T], of a video: RGB uint8 [T, H, W, 3].

        Must be thread-safe for different videos.

        Raises:
          DataError: names the file and the video of a frame that cannot be read.
        """
        ...

    def truth(self, index: int) -> VideoTruth:
        """Returns the tracks of a video over all its frames; none if unannotated."""
        ...

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """Reads a training clip: frames, possibly repeated, and object masks.

        Crowds are excluded; objects not visible in any of the frames may be omitted.
        `clip_of_truth` implements it from the other members, if there is no faster way.
        """
        ...


def check_dataset(dataset: object) -> None:
    """Raises ValueError, naming what is missing, unless it is a `Dataset`."""
    members = ("categories", "videos", "read_frames", "truth", "read_clip")
    missing = [name for name in members if not hasattr(dataset, name)]
    if missing:
        raise ValueError(
            f"dataset: expected {', '.join(members)}, got {type(dataset).__name__}"
            f" without {', '.join(missing)}"
        )
