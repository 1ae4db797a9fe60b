"""YouTube-VIS 2019, 2021, 2022, OVIS, and any folder in their format."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.dataset import Video
from data_pipeline.datasets.tracked import TrackedVideos
from data_pipeline.datasets.ytvis_json import Track, read_annotations
from data_pipeline.datasets.ytvis_layout import find_layout
from data_pipeline.errors import DataError
from data_pipeline.images import check_inside, open_image, read_rgb, upright_size

PARTS = ("train", "held_out", "all")


class YouTubeVis(TrackedVideos):
    """Videos as folders of JPEGs with one annotation file.

    Yang et al., "Video Instance Segmentation", ICCV 2019; Qi et al., "Occluded Video
    Instance Segmentation", IJCV 2022. The layouts are those of `ytvis_layout`.

    Args:
      root: folder of the data set.
      split: for example "train" or "valid".
      held_out: names or ids of videos kept apart, as the test server alone has the
        truth of the official validation sets.
      part: "train" leaves the held-out videos out, "held_out" has only them, "all"
        has every video.

    Raises:
      DataError: a defect of the files, with its place; a held-out video not there.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        held_out: Sequence[str | int] = (),
        part: str = "train",
    ):
        self.annotations_file, self.images, self.root = find_layout(root, split)
        content = read_annotations(self.annotations_file)
        keep = videos_of_part(content.videos, held_out, part, self.annotations_file)
        self.categories = content.categories
        self.videos = tuple(content.videos[k] for k in keep)
        self.tracks: tuple[tuple[Track, ...], ...] = tuple(
            content.tracks[k] for k in keep
        )
        self.runs = content.runs

    def path(self, index: int, frame: int) -> Path:
        """The image file of a frame."""
        return self.images / self.videos[index].file_names[frame]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Frames `frame_ids` of video `index`: uint8 [T, H, W, 3], RGB.

        Raises:
          DataError: a file that is missing, cut off, no image, or of another size.
        """
        video = self.videos[index]
        frames = np.empty((len(frame_ids), video.height, video.width, 3), np.uint8)
        for frame, number in zip(frames, frame_ids, strict=True):
            path = self.path(index, int(number))
            frame[:] = read_frame(path, video, root=self.root)
        return frames

    def clip_source(self, frames: int) -> ClipSource:
        """Decodes images and masks in the graph, for clips of `frames` frames."""
        # TensorFlow takes seconds to import; evaluation does without it.
        from data_pipeline.clip_sources import FolderSource

        return FolderSource(self, frames)


def read_frame(path: Path, video: Video, *, root: Path) -> np.ndarray:
    """One frame of a video, upright: uint8 [H, W, 3], RGB.

    Args:
      path: of the image.
      video: whose frame it is.
      root: folder of the data set, which `path` may not leave by a link.

    Raises:
      DataError: as `decode_frame`; a file outside of `root`.
    """
    check_inside(path, root)
    return decode_frame(path, video, place=path)


def decode_frame(
    file: Path | BytesIO, video: Video, *, place: str | Path
) -> np.ndarray:
    """One frame of a video, from an encoded image, upright: uint8 [H, W, 3], RGB.

    Args:
      file: with the image.
      video: whose frame it is.
      place: what messages call the file.

    Raises:
      DataError: a file that is missing, cut off, no image, of more than 8 bits a grey
        level, or of another size.
    """
    fail = partial(DataError, place, video=video.name)
    with open_image(file, fail) as image:
        size = upright_size(image)
        if size != (video.height, video.width):  # it may be huge: not decoded
            expected = f"({video.height}, {video.width}), as in the annotations"
            raise fail(field="height, width", expected=expected, got=size)
        return read_rgb(image, fail)


def videos_of_part(
    videos: Sequence[Video], held_out: Sequence[str | int], part: str, file: str | Path
) -> list[int]:
    """Positions of the videos that a part has.

    Args:
      videos: all videos.
      held_out: names or ids of videos kept apart.
      part: one of `PARTS`.
      file: where the videos are from, for the messages.

    Raises:
      ValueError: an unknown part.
      DataError: a held-out video that is not there; a part without videos.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {PARTS}, got {part!r}")
    apart = _held_out_ids(videos, held_out, file)
    keep = [
        k
        for k, video in enumerate(videos)
        if part == "all" or (video.video_id in apart) == (part == "held_out")
    ]
    if not keep:
        expected = f"videos in part {part!r}"
        raise DataError(file, expected=expected, got="none")
    return keep


def _held_out_ids(videos: Sequence, held_out: Sequence, file: str | Path) -> set[int]:
    """Ids of the videos that are named by id or by name."""
    if isinstance(held_out, str):
        raise ValueError(f"held_out: expected a sequence, got the text {held_out!r}")
    apart = set()
    for wanted in held_out:
        found = {v.video_id for v in videos if wanted in (v.video_id, v.name)}
        if not found:
            expected = "names or ids of videos"
            raise DataError(file, field="held_out", expected=expected, got=wanted)
        apart |= found
    return apart
