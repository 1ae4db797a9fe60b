"""Where frames come from: a video file, a folder of images, a glob."""

import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_pipeline.images import FORMATS

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FOLDER_FPS = Fraction(6)  # YouTube-VIS annotates every fifth frame of 30 a second
EXIF_ORIENTATION = 0x0112


class PredictError(ValueError):
    """An input that cannot be read, or an output that must not be written."""


@dataclass(frozen=True)
class Source:
    """Frames of one video, read anew by each iteration and never held together.

    Iteration gives uint8 [H, W, 3], RGB, upright (rotation in the metadata is done).
    """

    name: str
    height: int  # pixels, of the upright frame
    width: int
    num_frames: int
    fps: Fraction  # frames a second
    # One per frame; a video file has none, and gets names as YouTube-VIS would.
    file_names: tuple[str, ...] = field(repr=False)
    read: Callable[[], Iterator[np.ndarray]] = field(repr=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read()


def open_source(path: str | Path) -> Source:
    """Finds the frames that `path` names, and their number and size.

    A video file is decoded once to count its frames: what its header says is not
    reliable, and a broken file should fail before a model has run on it.

    Args:
      path: a video file, an image, a folder of images, or a glob that matches images
        or one video file. Images are sorted by the numbers in their names.

    Returns:
      A source that can be iterated over any number of times.

    Raises:
      PredictError: nothing there, nothing readable, or frames of different sizes.
    """
    pattern, path = str(path), Path(path)
    if path.is_dir():
        return _images(path.resolve().name, _images_in(path))
    if not path.exists():
        return _from_glob(pattern)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _images(path.stem, [path])
    return _video(path)


def _from_glob(pattern: str) -> Source:
    if not glob.has_magic(pattern):
        raise PredictError(f"{pattern}: no such file or folder")
    paths = [Path(p) for p in glob.glob(pattern, recursive=True)]
    paths = [p for p in paths if p.is_file()]
    if not paths:
        raise PredictError(f"{pattern}: matches no file")
    images = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES]
    if len(paths) == 1 and not images:
        return _video(paths[0])
    if len(images) != len(paths):
        other = sorted(set(paths) - set(images))[0]
        raise PredictError(
            f"{pattern}: expected images or one video file,"
            f" got {len(paths)} files, among them {other.name}"
        )
    images.sort(key=_natural)
    return _images(images[0].resolve().parent.name, images)


def _images_in(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    paths = [p for p in paths if not p.name.startswith(".")]
    if not paths:
        suffixes = " ".join(IMAGE_SUFFIXES)
        raise PredictError(f"{folder}: expected images ({suffixes}), found none")
    return sorted(paths, key=_natural)


def _natural(path: Path) -> tuple:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((int(p), p) if p.isdecimal() else (-1, p) for p in parts)


def _images(name: str, paths: list[Path]) -> Source:
    height, width = _image_size(paths[0])
    for path in paths[1:]:
        _check_size(str(path), _image_size(path), (height, width))
    return Source(
        name=name,
        height=height,
        width=width,
        num_frames=len(paths),
        fps=FOLDER_FPS,
        file_names=tuple(path.name for path in paths),
        read=partial(_read_images, paths),
    )


def _image_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright image, from its header alone."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
            mode = image.mode
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictError(f"{path}: not a readable image: {error}") from error
    if mode[0] in "IF":  # 16 bits and more: conversion to 8 bits would clip
        raise PredictError(f"{path}: expected 8 bits a channel, got mode {mode}")
    return (width, height) if turned else (height, width)


def _read_images(paths: list[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise PredictError(f"{path}: not a readable image: {error}") from error
        yield np.asarray(upright)


def _check_size(
    where: str, size: tuple[int, int], expected: tuple[int, int]
) -> tuple[int, int]:
    if size != expected:
        raise PredictError(
            f"{where}: expected the size of the first frame, {expected[0]} x"
            f" {expected[1]} (height x width), got {size[0]} x {size[1]}"
        )
    return size


def _video(path: Path) -> Source:
    size, num_frames = None, 0
    for frame in _decode(path):
        found = _upright_size(frame)
        size = _check_size(f"{path}, frame {num_frames}", found, size or found)
        num_frames += 1
    if size is None:
        raise PredictError(f"{path}: no frame could be decoded")
    return Source(
        name=path.stem,
        height=size[0],
        width=size[1],
        num_frames=num_frames,
        fps=_frame_rate(path),
        file_names=tuple(f"{path.stem}/{t:05d}.jpg" for t in range(num_frames)),
        read=partial(_read_video, path),
    )


def _decode(path: Path) -> Iterator:
    """The decoded frames as PyAV gives them, in order of display."""
    import av

    num_frames = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PredictError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _check_complete(path, stream)
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise PredictError(
                        f"{path}: truncated or damaged after frame {num_frames}"
                    )
                for frame in packet.decode():
                    yield frame
                    num_frames += 1
    except (av.FFmpegError, OSError) as error:
        raise PredictError(
            f"{path}: not a readable video (after {num_frames} frames): {error}"
        ) from error


def _check_complete(path: Path, stream) -> None:
    """Compares the file with the index of an mp4: its decoder ends without a word."""
    end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    size = path.stat().st_size
    if end > size:
        raise PredictError(f"{path}: truncated: expected {end} bytes, got {size}")


def _frame_rate(path: Path) -> Fraction:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate or stream.guessed_rate or FOLDER_FPS


def _quarter_turns(frame) -> int:
    """Counterclockwise turns that make a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def _upright_size(frame) -> tuple[int, int]:
    if _quarter_turns(frame) % 2:
        return frame.width, frame.height
    return frame.height, frame.width


def _read_video(path: Path) -> Iterator[np.ndarray]:
    for frame in _decode(path):
        pixels = frame.to_ndarray(format="rgb24")
        yield np.ascontiguousarray(np.rot90(pixels, _quarter_turns(frame)))
