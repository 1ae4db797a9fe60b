"""Reads planned clips as tensors: from folders, records, or through NumPy.

Each class is a `ClipSource`. Letters: h w source pixels, H W after resizing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from data_pipeline.augment.geometry import (
    crop_and_resize,
    resize_masks,
    source_positions,
)
from data_pipeline.augment.pseudo_clip import image_extent, take_views, view_matrices
from data_pipeline.clip_sampling import ClipPlan
from data_pipeline.clip_source import (
    ClipSource,
    ClipTensors,
    Features,
    HasClipSource,
)
from data_pipeline.datasets.clip_arrays import checked_clip, seen_tracks
from data_pipeline.datasets.dataset import Dataset, Video
from data_pipeline.datasets.ytvis_json import AnnotatedTrack
from data_pipeline.plain_files import PlainFiles, as_plain
from data_pipeline.rle_graph import RunTensors, decode_masks, run_tensors
from vis_jax.formats.rle import Runs


@runtime_checkable
class HasTracks(Protocol):
    """Videos whose masks are run lengths in memory."""

    videos: tuple[Video, ...]
    tracks: tuple[tuple[AnnotatedTrack, ...], ...]
    runs: Runs

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """See `Dataset.read_frames`."""
        ...


@runtime_checkable
class HasFiles(HasTracks, Protocol):
    """Videos with a file for each frame."""

    root: Path  # folder of the data set

    def path(self, index: int, frame: int) -> Path:
        """Returns the image file of a frame of a video."""
        ...


@runtime_checkable
class HasRecords(HasTracks, Protocol):
    """Videos whose frames are encoded images in records."""

    def encoded(self, index: int, frame_ids: np.ndarray) -> list[bytes]:
        """Returns the encoded images of frames of a video."""
        ...


def source_of(dataset: Dataset, frames: int) -> ClipSource:
    """Returns the data set's own source of clips, or one through `read_clip`."""
    if isinstance(dataset, HasClipSource):
        return dataset.clip_source(frames)
    return ReadSource(dataset, frames)


def plan_features(plan: ClipPlan, frames: int) -> dict[str, Any]:
    """Returns the features of a plan that every source needs.

    The number of frames in a graph is static: if the plan has fewer than `frames`, the
    last one repeats. `real` counts those of the plan.
    """
    missing = frames - len(plan.frame_ids)
    return {
        "video": plan.video,
        "frame_ids": np.pad(plan.frame_ids, (0, missing), "edge"),
        "real": len(plan.frame_ids),
        "crop": np.array(plan.crop, np.int32),
        "size": np.array(plan.size, np.int32),
        "flip": plan.flip,
        "colour": np.array(plan.colour, np.float32),
    }


def plan_signature(frames: int) -> dict[str, tf.TensorSpec]:
    """Returns the tensor specs of `plan_features`."""
    return {
        "video": tf.TensorSpec([], tf.int64),
        "frame_ids": tf.TensorSpec([frames], tf.int32),
        "real": tf.TensorSpec([], tf.int32),
        "crop": tf.TensorSpec([4], tf.int32),
        "size": tf.TensorSpec([2], tf.int32),
        "flip": tf.TensorSpec([frames], tf.bool),
        "colour": tf.TensorSpec([3], tf.float32),
    }


class FolderSource:
    """Reads JPEGs and run lengths; all pixel work is in the graph.

    Args:
      dataset: the videos.
      frames: T.
    """

    def __init__(self, dataset: HasFiles, frames: int) -> None:
        self._dataset, self._frames = dataset, frames
        self._plain = PlainFiles(dataset.root)
        self._runs = run_tensors(dataset.runs)
        self.signature = {
            **plan_signature(frames),
            **_track_signature(frames),
            "paths": tf.TensorSpec([frames], tf.string),
            "plain": tf.TensorSpec([frames], tf.bool),
        }

    def features(self, plan: ClipPlan) -> dict[str, object]:
        """Returns paths, and the tracks visible in the frames, without crowds."""
        dataset, features = self._dataset, plan_features(plan, self._frames)
        ids, tracks = features["frame_ids"], dataset.tracks[plan.video]
        paths = [dataset.path(plan.video, int(frame)) for frame in ids]
        return {
            **features,
            **_track_features(tracks, ids, dataset.videos[plan.video]),
            "paths": [str(path) for path in paths],
            "plain": [self._plain.has(path) for path in paths],
        }

    def read(self, features: Features) -> ClipTensors:
        """Decodes, crops and resizes."""
        paths, plain = tf.unstack(features["paths"]), tf.unstack(features["plain"])
        files = [self._plain.read(*one) for one in zip(paths, plain, strict=True)]
        return _decode(self._runs, features, files)

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the frames with Pillow, for its error messages."""
        self._dataset.read_frames(plan.video, plan.frame_ids)


class RecordSource:
    """Like `FolderSource`, with images from records.

    Args:
      dataset: the videos.
      frames: T.
    """

    def __init__(self, dataset: HasRecords, frames: int) -> None:
        self._dataset, self._frames = dataset, frames
        self._runs = run_tensors(dataset.runs)
        self.signature = {**plan_signature(frames), **_track_signature(frames)}

    def features(self, plan: ClipPlan) -> dict[str, object]:
        """Returns the tracks visible in the frames, without crowds."""
        video, tracks = self._dataset.videos[plan.video], self._dataset.tracks
        features = plan_features(plan, self._frames)
        return {
            **features,
            **_track_features(tracks[plan.video], features["frame_ids"], video),
        }

    def read(self, features: Features) -> ClipTensors:
        """Decodes, crops and resizes."""
        places = [features["video"], features["frame_ids"]]
        images = tf.numpy_function(self._encoded, places, tf.string)
        images = tf.ensure_shape(images, [self._frames])
        return _decode(self._runs, features, tf.unstack(images))

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the frames with Pillow, for its error messages."""
        self._dataset.read_frames(plan.video, plan.frame_ids)

    def _encoded(self, video: np.integer, frame_ids: np.ndarray) -> np.ndarray:
        images = self._dataset.encoded(int(video), frame_ids)
        place = self._dataset.videos[int(video)].name
        plain = [as_plain(image, place=place) for image in images]
        # As objects, since NumPy's byte strings drop trailing zeros.
        return np.array(plain, object)


class StillSource:
    """Reads one image and makes the frames of a clip from views of it.

    Args:
      dataset: the images.
      frames: T.
    """

    def __init__(self, dataset: HasFiles, frames: int) -> None:
        self._dataset, self._frames = dataset, frames
        self._plain = PlainFiles(dataset.root)
        self._runs = run_tensors(dataset.runs)
        self.signature = {
            **plan_signature(frames),
            **_track_signature(1),
            "path": tf.TensorSpec([], tf.string),
            "plain": tf.TensorSpec([], tf.bool),
            "extent_of_views": tf.TensorSpec([2], tf.int32),
            "matrices": tf.TensorSpec([frames, 2, 3], tf.float32),
        }

    def features(self, plan: ClipPlan) -> dict[str, object]:
        """Returns the path, the objects of the image, and the views as matrices."""
        if plan.views is None:
            raise ValueError("plan: expected views of an image, got none")
        dataset = self._dataset
        tracks, video = dataset.tracks[plan.video], dataset.videos[plan.video]
        path = dataset.path(plan.video, 0)
        extent = image_extent(plan.views, plan.size)
        matrices = view_matrices(plan.views, extent, plan.size)
        return {
            **plan_features(plan, self._frames),
            **_track_features(tracks, np.zeros(1, np.int32), video),
            "path": str(path),
            "plain": self._plain.has(path),
            "extent_of_views": np.array(extent, np.int32),
            "matrices": matrices.astype(np.float32),
        }

    def read(self, features: Features) -> ClipTensors:
        """Decodes, crops and resizes the image once, and samples the views from it."""
        resized = {**features, "size": features["extent_of_views"]}
        image = self._plain.read(features["path"], features["plain"])
        still = _decode(self._runs, resized, [image])
        matrices, size = features["matrices"], features["size"]
        pixels, masks = take_views(still.images[0], still.masks[:, 0], matrices, size)
        return ClipTensors(pixels, masks, still.labels, still.track_ids)

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the image with Pillow, for its error messages."""
        self._dataset.read_frames(plan.video, np.zeros(1, np.int32))


class ReadSource:
    """Calls `read_clip` of any data set from the graph.

    Args:
      dataset: the videos.
      frames: T.
    """

    def __init__(self, dataset: Dataset, frames: int) -> None:
        self._dataset, self._frames = dataset, frames
        self.signature = plan_signature(frames)

    def features(self, plan: ClipPlan) -> dict[str, object]:
        """Returns the plan alone."""
        return plan_features(plan, self._frames)

    def read(self, features: Features) -> ClipTensors:
        """Reads, crops and resizes."""
        images, masks, labels, track_ids = tf.numpy_function(
            self._read_clip,
            [features["video"], features["frame_ids"]],
            [tf.uint8, tf.bool, tf.int32, tf.int32],
        )
        images = tf.ensure_shape(images, [self._frames, None, None, 3])
        masks = tf.ensure_shape(masks, [None, self._frames, None, None])
        labels, track_ids = (tf.ensure_shape(x, [None]) for x in (labels, track_ids))
        crop, size = features["crop"], features["size"]
        frames = [crop_and_resize(frame, crop, size) for frame in tf.unstack(images)]
        rows = source_positions(crop[0], crop[2], size[0])
        columns = source_positions(crop[1], crop[3], size[1])
        masks = resize_masks(masks, rows, columns)
        return ClipTensors(tf.stack(frames), masks, labels, track_ids)

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the frames outside the graph, for their error messages."""
        checked_clip(self._dataset, plan.video, plan.frame_ids)

    def _read_clip(self, video: np.integer, frame_ids: np.ndarray) -> tuple:
        return tuple(checked_clip(self._dataset, int(video), frame_ids))


def _track_signature(frames: int) -> dict[str, tf.TensorSpec]:
    """Returns the tensor specs of `_track_features`."""
    return {
        "extent": tf.TensorSpec([2], tf.int32),
        "mask_index": tf.TensorSpec([None, frames], tf.int32),
        "labels": tf.TensorSpec([None], tf.int32),
        "track_ids": tf.TensorSpec([None], tf.int32),
    }


def _track_features(
    tracks: Sequence[AnnotatedTrack], ids: np.ndarray, video: Video
) -> dict[str, object]:
    """Returns the features of the non-crowd tracks visible in frames `ids`."""
    seen = seen_tracks(tracks, ids)
    masks = [track.mask_index[ids] for _, track in seen]
    return {
        "extent": np.array([video.height, video.width], np.int32),
        "mask_index": np.array(masks, np.int32).reshape(-1, len(ids)),
        "labels": np.array([track.label for _, track in seen], np.int32),
        "track_ids": np.array([number for number, _ in seen], np.int32),
    }


def _decode(
    runs: RunTensors, features: Features, images: Sequence[tf.Tensor]
) -> ClipTensors:
    """Decodes image files and run lengths to pixels and masks at their final size."""
    crop, size, extent = features["crop"], features["size"], features["extent"]
    frames = []
    for image in images:
        frame = tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
        same = tf.debugging.assert_equal(tf.shape(frame)[:2], extent)
        with tf.control_dependencies([same]):
            frames.append(crop_and_resize(frame, crop, size))
    masks = decode_masks(
        runs,
        features["mask_index"],
        height=extent[0],
        rows=source_positions(crop[0], crop[2], size[0]),
        columns=source_positions(crop[1], crop[3], size[1]),
    )
    return ClipTensors(
        tf.stack(frames), masks, features["labels"], features["track_ids"]
    )
