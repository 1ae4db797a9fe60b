"""Reader of YouTube-VIS 2019, 2021, 2022, OVIS, and folders in their format."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.dataset import Video
from data_pipeline.datasets.held_out import draw_held_out, videos_of_part
from data_pipeline.datasets.tracked import TrackedVideos
from data_pipeline.datasets.ytvis_json import AnnotatedTrack, read_annotations
from data_pipeline.datasets.ytvis_layout import find_layout
from data_pipeline.errors import DataError
from data_pipeline.images import check_inside, open_image, read_rgb, upright_size


class YouTubeVis(TrackedVideos):
    """Videos as folders of JPEGs with one annotation file.

    Yang et al., "Video Instance Segmentation", ICCV 2019; Qi et al., "Occluded Video
    Instance Segmentation", IJCV 2022. The layouts are those of `ytvis_layout`.

    Args:
      root: folder of the data set.
      split: for example "train" or "valid".
      held_out: names or ids of held-out videos, as only the evaluation server has the
        ground truth of the official validation sets.
      share: fraction of videos to hold out if `held_out` is empty, see `draw_held_out`.
      part: "train" excludes the held-out videos, "held_out" has only them, "all" has
        every video.

    Raises:
      DataError: a defect of the files, with its location, or a missing held-out video.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        held_out: Sequence[str | int] = (),
        share: float = 0.0,
        part: str = "train",
    ) -> None:
        self.annotations_file, self.images, self.root = find_layout(root, split)
        content = read_annotations(self.annotations_file)
        if not held_out:
            labels = [{track.label for track in some} for some in content.tracks]
            held_out = draw_held_out(content.videos, labels, share)
        keep = videos_of_part(content.videos, held_out, part, self.annotations_file)
        self.categories = content.categories
        self.videos = tuple(content.videos[k] for k in keep)
        self.tracks: tuple[tuple[AnnotatedTrack, ...], ...] = tuple(
            content.tracks[k] for k in keep
        )
        self.runs = content.runs

    def path(self, index: int, frame: int) -> Path:
        """Returns the image file of a frame."""
        return self.images / self.videos[index].file_names[frame]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Reads frames `frame_ids` of video `index`: RGB uint8 [T, H, W, 3].

        Raises:
          DataError: a file is missing, truncated, not an image, or of another size.
        """
        video = self.videos[index]
        frames = np.empty((len(frame_ids), video.height, video.width, 3), np.uint8)
        for frame, number in zip(frames, frame_ids, strict=True):
            path = self.path(index, int(number))
            frame[:] = read_frame(path, video, root=self.root)
        return frames

    def clip_source(self, frames: int) -> ClipSource:
        """Decodes images and masks in the graph, for clips of `frames` frames."""
        # Imported here: slow, and evaluation does not need TensorFlow.
        from data_pipeline.clip_sources import FolderSource

        return FolderSource(self, frames)


def read_frame(path: Path, video: Video, *, root: Path) -> np.ndarray:
    """Reads an upright frame of a video: RGB uint8 [H, W, 3].

    Args:
      path: image file.
      video: its video.
      root: folder of the data set, which `path` must not leave through a link.

    Raises:
      DataError: as in `decode_frame`, or the file is outside `root`.
    """
    check_inside(path, root)
    return decode_frame(path, video, place=path)


def decode_frame(
    file: Path | BytesIO, video: Video, *, place: str | Path
) -> np.ndarray:
    """Decodes an upright frame of a video: RGB uint8 [H, W, 3].

    Args:
      file: encoded image.
      video: its video.
      place: name of the file in messages.

    Raises:
      DataError: the file is missing, truncated, not an image, has more than 8 bits per
        grey level, or has another size.
    """
    fail = partial(DataError, place, video=video.name)
    with open_image(file, fail) as image:
        size = upright_size(image)
        if size != (video.height, video.width):  # checked before decoding a huge image
            expected = f"({video.height}, {video.width}), as in the annotations"
            raise fail(field="height, width", expected=expected, got=size)
        return read_rgb(image, fail)
