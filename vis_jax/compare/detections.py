"""Detections of whole videos, computed once and cached on disk for all trackers.

Masks are encoded as RLE at the original size here, so that they are not upsampled again
for each tracker. Axes: T frames of a video without padding, N detections per frame.
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from vis_jax.evaluate.clips import Piece, read_pieces
from vis_jax.evaluate.masks import Sizes, frame_masks, run_lengths
from vis_jax.formats.disk import naming, replaced
from vis_jax.results.clock import NO_CLOCK
from vis_jax.structures import Detections, Predictions, Render, Window
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import TestSettings
from vis_jax.typing import Array, Int32, UInt8

RunLengths = list[list[dict | None]]  # [T][N]; None for padding


class VideoDetections(NamedTuple):
    """Detections of a video."""

    found: Detections  # [T, N], NumPy
    masks: RunLengths  # at the original size


def read_whole(frames: Iterable[np.ndarray], test: TestSettings) -> Piece:
    """Reads a video as a single clip.

    Args:
      frames: uint8 [H, W, 3] in order.
      test: sizes that frames are resized to, and `frame_buckets`.
    """
    window = Window(None, None, buckets=test.frame_buckets)
    (piece,) = read_pieces(frames, window, test, NO_CLOCK)
    return piece


@runtime_checkable
class Find(Protocol):
    """Detects the objects of a video, a few frames at a time."""

    def __call__(self, piece: Piece) -> VideoDetections:
        """Returns the objects of the whole video."""
        ...


def make_find(detector: Detector, variables: dict, chunk: int) -> Find:
    """Returns the detection function, compiled once per canvas.

    Args:
      detector: to run.
      variables: its parameters, preferably on the device already.
      chunk: frames per call of the detector.
    """

    @jax.jit
    def detect(
        variables: dict, images: UInt8[Array, "T H W 3"], size: Int32[Array, "2"]
    ) -> Detections:
        features = detector.features(variables, images, size)
        return detector.detect(variables, features, size)

    def find(piece: Piece) -> VideoDetections:
        found = run_chunks(
            lambda images: detect(variables, images, piece.clip.size),
            (np.asarray(piece.clip.images)[: piece.rows],),
            chunk,
        )
        return VideoDetections(found, encode(found, piece.sizes))

    return find


def run_chunks(function: Callable, arrays: tuple[np.ndarray, ...], chunk: int) -> Any:
    """Maps `function` over arrays [T, ..] in chunks of frames; returns NumPy arrays."""
    frames, parts = len(arrays[0]), []
    for start in range(0, frames, chunk):
        some = [array[start : start + chunk] for array in arrays]
        # Pad to a fixed number, so that one program serves all chunks.
        missing = chunk - len(some[0])
        padding = [[(0, missing), *[(0, 0)] * (array.ndim - 1)] for array in some]
        out = function(*map(np.pad, some, padding))
        part = jax.tree.map(lambda x, n=chunk - missing: np.asarray(x)[:n], out)
        parts.append(part)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def encode(found: Detections, sizes: Sizes) -> RunLengths:
    """Encodes the masks of detections [T, N] as RLE at the original size.

    The mask of an empty box is empty.
    """
    frames, count = found.valid.shape
    (empty,) = run_lengths(np.zeros((1, *sizes.original[::-1]), np.uint8))
    masks: RunLengths = [[empty if one else None for one in row] for row in found.valid]
    numbers = np.arange(count, dtype=np.int32)
    alone = Predictions(
        class_probs=np.zeros((count, 1), np.float32),
        track_ids=numbers + 1,
        valid=np.ones(count, bool),
        slots=np.where(found.valid, numbers, -1),
        mask_logits=found.mask_logits,
        mask_boxes=found.covered,
    )
    rows = range(frames)
    shown = frame_masks(alone, sizes, Render(), rows=rows, at_once=frames)
    for row, (objects, pixels) in zip(masks, shown, strict=True):
        for number, rle in zip(objects, run_lengths(pixels), strict=True):
            row[number] = rle
    return masks


def cached(
    path: Path, run_id: str, find: Callable[[], VideoDetections]
) -> VideoDetections:
    """Loads cached detections, or calls `find` and caches its result.

    Args:
      path: path of the cache file; its folder is created.
      run_id: identifies what detections depend on; a cache of another run is replaced.
      find: called if there is no cache.

    Raises:
      ValueError: the file is damaged.
      OSError: the file cannot be written; names it.
    """
    detections = load(path, run_id)
    if detections is None:
        detections = find()
        save(path, run_id, detections)
    return detections


def save(path: Path, run_id: str, detections: VideoDetections) -> None:
    """Writes detections atomically."""
    flat = [rle for row in detections.masks for rle in row]
    sizes = [rle["size"] for rle in flat if rle]
    arrays = dict(
        run_id=np.array(run_id),
        size=np.array(sizes[0] if sizes else (0, 0), np.int64),
        # Size of each mask in bytes, -1 for none.
        lengths=np.array([len(rle["counts"]) if rle else -1 for rle in flat], np.int64),
        counts=np.frombuffer(b"".join(rle["counts"] for rle in flat if rle), np.uint8),
        **{k: v for k, v in detections.found._asdict().items() if v is not None},
    )
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load(path: Path, run_id: str) -> VideoDetections | None:
    """Reads the output of `save`; None if it is missing or from another run.

    Raises:
      ValueError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        # NumPy would leave a damaged file open if it opened it itself.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["run_id"]) != run_id:
                return None
            known = {n: file[n] for n in Detections._fields if n in file}
            found = Detections(**known)
            return VideoDetections(found, _masks(file))
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected detections, got a damaged file; delete it to have them"
            " found again"
        ) from error


def _masks(file: Mapping[str, np.ndarray]) -> RunLengths:
    """Reads the RLE masks of a file."""
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
