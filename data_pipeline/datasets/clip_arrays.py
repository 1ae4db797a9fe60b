"""Makes clips from the frames and the ground truth of a video."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.datasets.dataset import ClipArrays, Dataset, Video, VideoTruth
from data_pipeline.datasets.ytvis_json import AnnotatedTrack
from vis_jax.formats.rle import Runs, decode_mask, runs_from_strings


def checked_clip(dataset: Dataset, index: int, frame_ids: np.ndarray) -> ClipArrays:
    """Calls `read_clip` of a possibly user-defined data set, and checks the result.

    Raises:
      ValueError: an array has a wrong type or shape; names the video and the array.
    """
    clip, video = dataset.read_clip(index, frame_ids), dataset.videos[index]
    size = (len(frame_ids), video.height, video.width)
    count = len(clip.labels)
    expected = {
        "images": (np.uint8, (*size, 3)),
        "masks": (np.bool_, (count, *size)),
        "labels": (np.int32, (count,)),
        "track_ids": (np.int32, (count,)),
    }
    for name, (dtype, shape) in expected.items():
        found = getattr(clip, name)
        if (found.dtype, found.shape) != (dtype, shape):
            raise ValueError(
                f"read_clip, video {video.name}, {name}: expected"
                f" {np.dtype(dtype).name} {list(shape)}, got {found.dtype}"
                f" {list(found.shape)}"
            )
    return clip


def clip_of_truth(
    images: np.ndarray, truth: VideoTruth, frame_ids: np.ndarray
) -> ClipArrays:
    """Decodes the masks of given frames, without crowds.

    Args:
      images: uint8 [T, H, W, 3], frames `frame_ids` of a video.
      truth: ground truth of the whole video.
      frame_ids: int [T].
    """
    kept = np.flatnonzero(~truth.crowd & truth.present[:, frame_ids].any(axis=1))
    height, width = images.shape[1:3]
    masks = np.zeros((len(kept), *images.shape[:3]), bool)
    for row, track in enumerate(kept):
        for t, frame in enumerate(frame_ids):
            mask = truth.segmentations[track][frame]
            if mask is not None:
                runs = runs_from_strings([mask["counts"]], height * width)
                masks[row, t] = decode_mask(runs, 0, height=height, width=width)
    return ClipArrays(images, masks, truth.labels[kept], truth.track_ids[kept])


def seen_tracks(
    tracks: Sequence[AnnotatedTrack], frame_ids: np.ndarray
) -> list[tuple[int, AnnotatedTrack]]:
    """Returns the non-crowd tracks visible in given frames, with their ids."""
    return [
        (number, track)
        for number, track in enumerate(tracks, start=1)
        if not track.crowd and (track.mask_index[frame_ids] >= 0).any()
    ]


def clip_of_tracks(
    images: np.ndarray,
    video: Video,
    tracks: Sequence[AnnotatedTrack],
    runs: Runs,
    frame_ids: np.ndarray,
) -> ClipArrays:
    """Like `clip_of_truth`, from tracks of an annotation file with masks in `runs`.

    Args:
      images: uint8 [T, H, W, 3], frames `frame_ids` of the video.
      video, tracks, runs: see `ytvis_json.Annotations`.
      frame_ids: int [T].
    """
    size = dict(height=video.height, width=video.width)
    seen = seen_tracks(tracks, frame_ids)
    masks = np.zeros((len(seen), *images.shape[:3]), bool)
    for row, (_, track) in enumerate(seen):
        for t, mask in enumerate(track.mask_index[frame_ids]):
            if mask >= 0:
                masks[row, t] = decode_mask(runs, int(mask), **size)
    labels = np.array([track.label for _, track in seen], np.int32)
    track_ids = np.array([number for number, _ in seen], np.int32)
    return ClipArrays(images, masks, labels, track_ids)
