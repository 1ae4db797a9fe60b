"""What a detector finds in whole videos, once, kept on disk for any number of trackers.

Masks become run lengths at the original size here, so that no tracker's result has to
enlarge them again. Axes: T frames of a video, without padding, N detections of a frame.
"""

import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from data_pipeline.read_video import resize_frames
from vis_jax.evaluate.clips import bucket, clips_of
from vis_jax.evaluate.masks import Sizes, run_lengths, stretched
from vis_jax.metrics.disk import naming
from vis_jax.structures import Clip, Detections
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import TestSettings

RunLengths = list[list[dict | None]]  # [T][N]; None for padding


class Footage(NamedTuple):
    """A video at model size as one clip, padded in time to its bucket."""

    clip: Clip
    sizes: Sizes
    frames: int  # real ones, T


class VideoDetections(NamedTuple):
    """The detections of a video."""

    found: Detections  # [T, N], NumPy
    masks: RunLengths  # at the original size


def read_footage(
    frames: Iterable[np.ndarray],
    test: TestSettings,
    *,
    height: int,
    width: int,
    num_frames: int,
) -> Footage:
    """Reads a video.

    Args:
      frames: uint8 [H, W, 3] in order.
      test: `short_side` and `long_side` in pixels, `frame_buckets`.
      height, width: of the frames.
      num_frames: how many there are.
    """
    resized = (
        resize_frames(frame[None], test.short_side, test.long_side)[0]
        for frame in frames
    )
    length = bucket(num_frames, test.frame_buckets)
    clip, _ = next(clips_of(resized, num_frames, length=length, stride=length))
    canvas = (clip.images.shape[1], clip.images.shape[2])
    content = (int(clip.size[0]), int(clip.size[1]))
    return Footage(clip, Sizes(canvas, content, (height, width)), num_frames)


def make_find(
    detector: Detector, variables: dict, chunk: int
) -> Callable[[Footage], VideoDetections]:
    """A function that finds the objects of a video, a few frames at a time.

    It is compiled once for each canvas.

    Args:
      detector: what to run.
      variables: its parameters, best on the device.
      chunk: frames that the detector sees at once.
    """
    detect = jax.jit(detector.detect)

    def find(footage: Footage) -> VideoDetections:
        found = in_chunks(
            lambda images: detect(variables, images, footage.clip.size),
            (np.asarray(footage.clip.images)[: footage.frames],),
            chunk,
        )
        masks = encode(
            found.mask_logits, found.boxes, wanted=found.valid, sizes=footage.sizes
        )
        return VideoDetections(found, masks)

    return find


def in_chunks(function: Callable, arrays: tuple[np.ndarray, ...], chunk: int):
    """`function` of arrays [T, ..], `chunk` frames at a time; gives NumPy [T, ..]."""
    frames, parts = len(arrays[0]), []
    for start in range(0, frames, chunk):
        some = [array[start : start + chunk] for array in arrays]
        # Always as many, so that one program serves all.
        missing = chunk - len(some[0])
        padding = [[(0, missing), *[(0, 0)] * (array.ndim - 1)] for array in some]
        out = function(*map(np.pad, some, padding))
        part = jax.tree.map(lambda x, n=chunk - missing: np.asarray(x)[:n], out)
        parts.append(part)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def encode(
    logits: np.ndarray, boxes: np.ndarray, *, wanted: np.ndarray, sizes: Sizes
) -> RunLengths:
    """Masks over boxes as run lengths at the original size.

    Args:
      logits: float32 [T, N, h, w], positive inside.
      boxes: float32 [T, N, 4] in canvas pixels; the mask of an empty one is empty.
      wanted: bool [T, N], which ones have a mask.
      sizes: of the frames.
    """
    scale = np.divide(sizes.original, sizes.content, dtype=np.float32)
    boxes = boxes * np.tile(scale[::-1], 2)
    there = wanted & (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    (empty,) = run_lengths(np.zeros((1, *sizes.original[::-1]), np.uint8))
    masks: RunLengths = [[empty if one else None for one in row] for row in wanted]
    for frame, rows in enumerate(map(np.flatnonzero, there)):
        shown = stretched(logits[frame, rows], boxes[frame, rows], sizes.original)
        for row, rle in zip(rows, run_lengths(shown), strict=True):
            masks[frame][row] = rle
    return masks


def cached(
    path: Path, run_id: str, find: Callable[[], VideoDetections]
) -> VideoDetections:
    """The detections of a file, or what `find` gives, which is then written there.

    Args:
      path: of the file; its folder is made.
      run_id: what the detections depend on; those of another one are replaced.
      find: called if the file has none.

    Raises:
      ValueError: the file is damaged.
      OSError: it cannot be written; names it.
    """
    detections = load(path, run_id)
    if detections is None:
        detections = find()
        save(path, run_id, detections)
    return detections


def save(path: Path, run_id: str, detections: VideoDetections) -> None:
    """Writes detections; under the name there is never half a file."""
    flat = [rle for row in detections.masks for rle in row]
    sizes = [rle["size"] for rle in flat if rle]
    arrays = dict(
        run_id=np.array(run_id),
        size=np.array(sizes[0] if sizes else (0, 0), np.int64),
        # Bytes of every mask, -1 where there is none.
        lengths=np.array([len(rle["counts"]) if rle else -1 for rle in flat], np.int64),
        counts=np.frombuffer(b"".join(rle["counts"] for rle in flat if rle), np.uint8),
        **detections.found._asdict(),
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, run_id: str) -> VideoDetections | None:
    """What `save` wrote; None if there is no such file or it is of another run.

    Raises:
      ValueError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        # NumPy leaves a damaged file open if it has opened it itself.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["run_id"]) != run_id:
                return None
            found = Detections(**{name: file[name] for name in Detections._fields})
            return VideoDetections(found, _masks(file))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: expected detections, got a damaged file; delete it to have them"
            " found again"
        ) from error


def _masks(file) -> RunLengths:
    """The run lengths of a file."""
    shape = file["valid"].shape
    size, counts = file["size"].tolist(), file["counts"].tobytes()
    lengths = file["lengths"].reshape(shape)
    ends = np.cumsum(np.maximum(lengths, 0)).reshape(shape)
    return [
        [
            None if n < 0 else {"size": size, "counts": counts[end - n : end]}
            for n, end in zip(*row, strict=True)
        ]
        for row in zip(lengths.tolist(), ends.tolist(), strict=True)
    ]
