"""Packs a folder in the format of YouTube-VIS or OVIS into a few large files.

Writes two tensorflow-datasets in randomly accessible ArrayRecord files: frames, one
record each with the unchanged bytes of the image file, and videos with their tracks and
masks. Reading a clip then costs only the bytes of its frames.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipeline.datasets.ytvis import YouTubeVis, read_frame
from data_pipeline.datasets.ytvis_layout import TFDS_VERSION
from data_pipeline.errors import DataError
from vis_jax.formats.disk import replaced_folder
from vis_jax.formats.rle import compress_mask

SHARD_BYTES = 2**28  # minimum bytes of images per file, except the last
VIDEOS_IN_SHARD = 10_000
_THREADS = 4  # frames decoded at a time

# Per split its files, per file its records with their positions.
Shards = dict[str, list[Callable[[], Iterator[tuple[int, dict]]]]]


class Built(NamedTuple):
    """Summary of the written data set."""

    videos: int
    frames: int
    shards: int  # files with frames
    size: int  # bytes of all frames


class VisFrames(tfds.core.ShardBasedBuilder):
    """The frames of all videos, in video order.

    Args:
      source: the folder.
      split: name of the split to write.
      shard_bytes: bytes of images per file.
      bar: progress bar over frames.
      data_dir: folder to write to.
    """

    VERSION = tfds.core.Version(TFDS_VERSION)
    code_path = None  # where checksums of downloads would be: there are none

    def __init__(
        self,
        source: YouTubeVis,
        split: str,
        *,
        shard_bytes: int,
        bar: tqdm,
        data_dir: str,
    ) -> None:
        self._source, self._split = source, split
        self._shard_bytes, self._bar = shard_bytes, bar
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frames of videos, in order; `image` as in its file.",
            features=tfds.features.FeaturesDict(
                {
                    "video_id": np.int64,
                    "frame": np.int32,
                    "image": tfds.features.Image(),
                }
            ),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: object) -> Shards:
        del dl_manager
        shards = _shards(self._source, self._shard_bytes)
        return {self._split: [partial(self._examples, some) for some in shards]}

    def _examples(self, indices: Sequence[int]) -> Iterator[tuple[int, dict]]:
        key = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            for index in indices:
                video = self._source.videos[index]
                sound = partial(_sound_image, self._source, index)
                for frame, path in enumerate(pool.map(sound, range(video.length))):
                    place = {"video_id": video.video_id, "frame": frame}
                    yield key, {**place, "image": str(path)}
                    key += 1
                    self._bar.update()


class VisVideos(tfds.core.ShardBasedBuilder):
    """The videos without their frames: names, sizes, tracks and masks.

    There is one mask per track and frame in which the track has pixels.

    Args:
      source: the folder.
      split: name of the split to write.
      data_dir: folder to write to.
    """

    VERSION = tfds.core.Version(TFDS_VERSION)
    code_path = None  # where checksums of downloads would be: there are none

    def __init__(self, source: YouTubeVis, split: str, *, data_dir: str) -> None:
        self._source, self._split = source, split
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        tracks = {"label": np.int32, "is_crowd": np.bool_}
        masks = {
            "track": np.int32,  # position among the tracks
            "frame": np.int32,
            "counts": tfds.features.Text(),  # run lengths, as pycocotools writes them
            "occlusion": np.float32,  # hidden share; NaN = unknown
        }
        categories = [list(category) for category in self._source.categories]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Videos with tracks; labels are positions in `categories`.",
            features=tfds.features.FeaturesDict(
                {
                    "video_id": np.int64,
                    "name": tfds.features.Text(),
                    "height": np.int32,
                    "width": np.int32,
                    "file_names": tfds.features.Sequence(tfds.features.Text()),
                    "tracks": tfds.features.Sequence(tracks),
                    "masks": tfds.features.Sequence(masks),
                }
            ),
            metadata=tfds.core.MetadataDict(categories=categories),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: object) -> Shards:
        del dl_manager
        count = len(self._source.videos)
        starts = range(0, count, VIDEOS_IN_SHARD)
        shards = [range(k, min(k + VIDEOS_IN_SHARD, count)) for k in starts]
        return {self._split: [partial(self._examples, some) for some in shards]}

    def _examples(self, indices: Sequence[int]) -> Iterator[tuple[int, dict]]:
        for index in indices:
            yield index, _video_example(self._source, index)


def build(
    source: str | Path,
    split: str,
    output: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = False,
) -> Built:
    """Writes `output/<split>`; `ytvis_tfds.TfdsVideos` reads it.

    Every image is decoded once to detect bad ones early. The folder is written
    atomically.

    Args:
      source: folder in a layout of `ytvis_layout`.
      split: for example "train".
      output: folder of the data set; may contain other splits.
      shard_bytes: a file of frames ends with the video that reaches this size.
      progress: show a bar.

    Raises:
      DataError: a defect of the source.
      ValueError: the split name is invalid for tensorflow-datasets, or `output/<split>`
        is not empty.
      OSError: a file cannot be written.
    """
    if not split.isidentifier() or split == "all":
        expected = "a word of letters, digits and _ other than 'all'"
        raise ValueError(f"split: expected {expected}, got {split!r}")
    folder = Path(output) / split
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"output: expected no files in {folder}, got some")
    videos = YouTubeVis(source, split, part="all")
    try:
        with replaced_folder(folder) as temporary:
            built = _write(videos, split, str(temporary), shard_bytes, progress)
    except RuntimeError as error:  # raised by ArrayRecord for a full disk
        raise OSError(f"{folder}: {error}") from error
    return built


def _write(
    source: YouTubeVis, split: str, folder: str, shard_bytes: int, progress: bool
) -> Built:
    count = sum(video.length for video in source.videos)
    with tqdm(total=count, desc="frames", disable=not progress) as bar:
        frames = VisFrames(
            source, split, shard_bytes=shard_bytes, bar=bar, data_dir=folder
        )
        _prepare(frames)
    _prepare(VisVideos(source, split, data_dir=folder))
    done = frames.info.splits[split]
    return Built(len(source.videos), done.num_examples, done.num_shards, done.num_bytes)


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    # TFDS reports downloads on stdout, and creates folders for them.
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(download_dir=downloads, file_format="array_record")


def _shards(source: YouTubeVis, shard_bytes: int) -> list[list[int]]:
    """Divides whole videos, in order, into shards by file size."""
    shards: list[list[int]] = [[]]
    size = 0
    for index, video in enumerate(source.videos):
        if size >= shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(index)
        size += sum(_size(source, index, frame) for frame in range(video.length))
    return shards


def _sound_image(source: YouTubeVis, index: int, frame: int) -> Path:
    """Returns the file of a frame after decoding it as a check."""
    path = source.path(index, frame)
    read_frame(path, source.videos[index], root=source.root)
    return path


def _size(source: YouTubeVis, index: int, frame: int) -> int:
    """Returns the bytes of an image file."""
    path = source.path(index, frame)
    try:
        return path.stat().st_size
    except OSError as error:
        name = source.videos[index].name
        expected = "an image file"
        raise DataError(path, video=name, expected=expected, got=str(error)) from error


def _video_example(source: YouTubeVis, index: int) -> dict:
    video, tracks = source.videos[index], source.tracks[index]
    size = dict(height=video.height, width=video.width)
    masks = [
        {
            "track": number,
            "frame": int(frame),
            "counts": compress_mask(source.runs, track.mask_index[frame], **size)[
                "counts"
            ],
            "occlusion": track.occlusion[frame],
        }
        for number, track in enumerate(tracks)
        for frame in np.flatnonzero(track.mask_index >= 0)
    ]
    return {
        "video_id": video.video_id,
        "name": video.name,
        **size,
        "file_names": list(video.file_names),
        "tracks": [{"label": t.label, "is_crowd": t.crowd} for t in tracks],
        "masks": masks,
    }
