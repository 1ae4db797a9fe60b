"""Reads the output of `write.tfds_builder`, with the same arrays as the folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.clip_source import ClipSource
from data_pipeline.datasets.dataset import Category, Video
from data_pipeline.datasets.held_out import draw_held_out, videos_of_part
from data_pipeline.datasets.tracked import TrackedVideos
from data_pipeline.datasets.ytvis import decode_frame
from data_pipeline.datasets.ytvis_json import AnnotatedTrack, read_json
from data_pipeline.datasets.ytvis_layout import (
    TFDS_FRAMES,
    TFDS_VERSION,
    TFDS_VIDEOS,
)
from data_pipeline.errors import DataError, is_name
from vis_jax.formats.rle import Runs, concatenate_runs, runs_from_strings

_FEATURES = {
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
    )
}


class _Annotated(NamedTuple):
    """A video with its tracks, whose mask indices are local to the video."""

    video: Video
    tracks: tuple[AnnotatedTrack, ...]
    runs: Runs


class TfdsVideos(TrackedVideos):
    """Videos in ArrayRecord files with random access to frames.

    Names, tracks and masks are kept in memory, as for a folder; a frame is one record.

    Args:
      root: folder of the data set, with a subfolder per split.
      split: for example "train".
      held_out, share: as for `YouTubeVis`.
      part: as for `YouTubeVis`.

    Raises:
      DataError: a file is missing or damaged, or a held-out video is missing.
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
        folder = Path(root) / split
        self._place = folder / TFDS_FRAMES / TFDS_VERSION
        self._frames, _ = _open(self._place, split)
        place = folder / TFDS_VIDEOS / TFDS_VERSION
        records, metadata = _open(place, split)
        self.categories = _categories(metadata, place)
        read = [_read_video(records, k, place) for k in range(len(records))]
        videos = [one.video for one in read]
        first = np.cumsum([0, *(video.length for video in videos)])
        if len(self._frames) != first[-1]:
            expected = f"{first[-1]} frames, as in {place}"
            raise DataError(self._place, expected=expected, got=len(self._frames))
        if not held_out:
            labels = [{track.label for track in one.tracks} for one in read]
            held_out = draw_held_out(videos, labels, share)
        keep = videos_of_part(videos, held_out, part, place)
        self.videos = tuple(videos[k] for k in keep)
        self._first = [int(first[k]) for k in keep]  # record of each video's frame 0
        self.tracks, self.runs = _join([read[k] for k in keep])

    def encoded(self, index: int, frame_ids: np.ndarray) -> list[bytes]:
        """Returns the encoded images of frames `frame_ids` of video `index`.

        Raises:
          DataError: a record cannot be read, or belongs to another frame.
        """
        video, first = self.videos[index], self._first[index]
        images = []
        for frame in map(int, frame_ids):
            record = _read(self._frames, first + frame, self._place)
            found = record["video_id"], record["frame"]
            if found != (video.video_id, frame):
                raise DataError(
                    self._place,
                    video=video.name,
                    field=f"record {first + frame}",
                    expected=f"video id and frame {(video.video_id, frame)}",
                    got=tuple(map(int, found)),
                )
            images.append(record["image"])
        return images

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Reads frames `frame_ids` of video `index`: RGB uint8 [T, H, W, 3].

        Raises:
          DataError: a record, or the image in it, cannot be read.
        """
        video = self.videos[index]
        frames = np.empty((len(frame_ids), video.height, video.width, 3), np.uint8)
        images = self.encoded(index, frame_ids)
        for target, number, image in zip(frames, frame_ids, images, strict=True):
            place = self._place / video.file_names[int(number)]
            target[:] = decode_frame(BytesIO(image), video, place=place)
        return frames

    def clip_source(self, frames: int) -> ClipSource:
        """Decodes images and masks in the graph, for clips of `frames` frames."""
        # Imported here: slow, and evaluation does not need TensorFlow.
        from data_pipeline.clip_sources import RecordSource

        return RecordSource(self, frames)


def _open(folder: Path, split: str) -> tuple[Sequence[dict], Mapping]:
    """Opens the records of a split, without decoding images, and the metadata."""
    if not folder.is_dir():
        expected = "a folder that `data build_tfds` wrote"
        raise DataError(folder, expected=expected, got="no such folder")
    _check_features(folder / "features.json")
    try:
        builder = tfds.builder_from_directory(str(folder))
        images = "image" in builder.info.features
        decoders = {"image": tfds.decode.SkipDecoding()} if images else None
        records = builder.as_data_source(split=split, decoders=decoders)
    except Exception as error:  # TFDS, protobuf and etils raise various errors
        expected = f"split {split!r} in ArrayRecord files"
        raise DataError(folder, expected=expected, got=str(error)) from error
    return records, builder.info.metadata or {}


def _check_features(file: Path) -> None:
    """Checks that the file names only TFDS classes, as TFDS imports what it names."""
    # Without the file the builder imports nothing and reports it.
    waiting: list[object] = [read_json(file)] if file.exists() else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and "." in value and value not in _FEATURES:
            expected = f"one of the classes {', '.join(sorted(_FEATURES))}"
            raise DataError(file, expected=expected, got=value)


def _read(source: Sequence[dict], number: int, place: Path) -> dict:
    """Reads one record."""
    defect = partial(DataError, place, field=f"record {number}")
    try:
        record = source[number]
    except Exception as error:  # ArrayRecord raises various errors
        got = f"{type(error).__name__}: {error}"
        raise defect(expected="a record that can be read", got=got) from error
    lost = [key for key, value in record.items() if value is None]
    if lost:  # from a truncated file
        raise defect(expected="a whole record", got=f"one without {', '.join(lost)}")
    return record


def _categories(metadata: Mapping, place: Path) -> tuple[Category, ...]:
    if "categories" not in metadata:
        file = place / "metadata.json"
        raise DataError(file, field="categories", expected="a list", got="nothing")
    categories = tuple(Category(*pair) for pair in metadata["categories"])
    if not all(is_name(category.name) for category in categories):
        fail = partial(DataError, place / "metadata.json", field="categories")
        raise fail(expected="names on one line", got=list(categories))
    return categories


def _read_video(source: Sequence[dict], number: int, place: Path) -> _Annotated:
    record = _read(source, number, place)
    names = tuple(name.decode() for name in record["file_names"])
    video = Video(
        video_id=int(record["video_id"]),
        name=record["name"].decode(),
        height=int(record["height"]),
        width=int(record["width"]),
        length=len(names),
        file_names=names,
    )
    tracks, masks = record["tracks"], record["masks"]
    shape = (len(tracks["label"]), video.length)
    index, occlusion = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    where = np.array(masks["track"], int), np.array(masks["frame"], int)
    index[where] = np.arange(len(where[0]))
    occlusion[where] = masks["occlusion"]
    runs = runs_from_strings(list(masks["counts"]), video.height * video.width)
    flags = zip(tracks["label"], tracks["is_crowd"], strict=True)
    return _Annotated(
        video,
        tuple(
            AnnotatedTrack(int(label), bool(crowd), index[k], occlusion[k], entry=k)
            for k, (label, crowd) in enumerate(flags)
        ),
        runs,
    )


def _join(
    read: Sequence[_Annotated],
) -> tuple[tuple[tuple[AnnotatedTrack, ...], ...], Runs]:
    """Joins tracks, renumbering masks globally; returns them and all masks."""
    tracks, offset = [], 0
    for one in read:
        tracks.append(tuple(_moved(track, offset) for track in one.tracks))
        offset += len(one.runs.splits) - 1
    return tuple(tracks), concatenate_runs([one.runs for one in read])


def _moved(track: AnnotatedTrack, offset: int) -> AnnotatedTrack:
    index = track.mask_index
    return track._replace(
        mask_index=np.where(index < 0, index, index + np.int32(offset))
    )
