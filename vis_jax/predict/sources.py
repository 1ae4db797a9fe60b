"""Opens sources of frames: a file, a folder of images, a glob, a list, arrays."""

import dataclasses
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError, printable
from data_pipeline.file_names import IMAGE_SUFFIXES, natural_order
from data_pipeline.images import ONE_IMAGE, WHOLE, open_image, read_rgb, upright_size
from vis_jax.predict import hdr
from vis_jax.predict.errors import PredictError
from vis_jax.predict.live import LIVE, STDIN, open_live
from vis_jax.predict.part import WHOLE_VIDEO, Part
from vis_jax.predict.sound import Sound
from vis_jax.predict.source import FOLDER_FPS, Source
from vis_jax.predict.video_file import (
    DecodedFrame,
    Input,
    VideoReader,
    check_bounds,
    check_same_size,
)

__all__ = ["FOLDER_FPS", "PredictError", "Source", "from_arrays", "open_source"]

# Unsupported image formats: an error among frames, rather than skipped.
OTHER_IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".cr2", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif"),
    *(".j2k", ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl", ".nef", ".pbm", ".pgm"),
    *(".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".svg", ".tga"),
)


def open_source(
    path: str | Path | Sequence[str | Path],
    *,
    raw: tuple[int, int] | None = None,
    fps: Fraction | float | None = None,
    part: Part = WHOLE_VIDEO,
) -> Source:
    """Opens the frames at `path` and reads their size.

    Args:
      path: a video file, an image, a folder of images, or a glob that matches images or
        one video file (images are sorted by the numbers in their names); a list of
        images, kept in order; "-" for standard input; "camera:0" for a capture device;
        an address that begins with one of `live.LIVE`.
      raw: height and width in pixels of raw 8-bit RGB frames on standard input.
      fps: frames per second of raw frames.
      part: part of the video to read.

    Returns:
      A source that can be iterated over any number of times, once if it is live.

    Raises:
      PredictError: nothing is found or readable, or images differ in size.
    """
    if not isinstance(path, str | Path):
        return _listed([Path(one).expanduser() for one in path], part)
    pattern = os.path.expanduser(path)
    path = Path(pattern)
    if raw is not None and pattern != STDIN:
        raise PredictError(f"--raw: expected - as the source, got {pattern}")
    if pattern == STDIN or (pattern.startswith(LIVE) and not path.exists()):
        rate = None if fps is None else Fraction(fps)
        return _live_part(open_live(pattern, raw=raw, fps=rate), part)
    if path.is_dir():
        return _images(path.resolve().name, _images_in(path), part)
    if not path.exists():
        return _from_glob(pattern, part)
    _check_regular(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _images(path.stem, [path], part)
    return _video(path, part)


def _live_part(source: Source, part: Part) -> Source:
    """Restricts a live source to a part."""
    if part == WHOLE_VIDEO:
        return source

    def read() -> Iterator[DecodedFrame]:
        begin = None
        frames = ((frame.seconds, frame) for frame in source.read())
        for seconds, frame in part.chosen(frames):
            begin = seconds if begin is None else begin
            yield frame._replace(seconds=seconds - begin)

    return dataclasses.replace(source, read=read, fps=part.rate(source.fps))


def from_arrays(
    frames: Iterable[np.ndarray],
    *,
    fps: Fraction | float | None = None,
    name: str = "video",
) -> Source:
    """Makes a source of frames in memory.

    Args:
      frames: RGB uint8 [H, W, 3]: an array [T, H, W, 3], a list, or an iterator, which
        is read lazily, once.
      fps: frames per second; None: FOLDER_FPS.
      name: name of the video.

    Raises:
      PredictError: there are no frames, or the first is not such an array.
    """
    count = len(frames) if isinstance(frames, Sequence | np.ndarray) else None
    # An iterator has lost its first frame, which is put back in front.
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise PredictError(f"{name}: expected at least one frame, got none")
    height, width = _array_size(f"{name}, frame 0", first)
    check_bounds(name, height, width)
    rate = FOLDER_FPS if fps is None else Fraction(fps)
    rest = chain([first], iterator) if count is None else frames

    def read() -> Iterator[DecodedFrame]:
        for number, frame in enumerate(rest):
            where = f"{name}, frame {number}"
            check_same_size(where, _array_size(where, frame), (height, width))
            yield DecodedFrame(frame, float(number / rate))

    return Source(
        name=name,
        path=name,
        height=height,
        width=width,
        num_frames=count,
        fps=rate,
        read=read,
        live=count is None,
    )


def _array_size(where: str, frame: np.ndarray) -> tuple[int, int]:
    shape, kind = np.shape(frame), getattr(frame, "dtype", type(frame).__name__)
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise PredictError(
            f"{where}: expected uint8 [height, width, 3], got {kind} {list(shape)}"
        )
    return shape[0], shape[1]


def _listed(paths: list[Path], part: Part) -> Source:
    """Opens a list of images, in the given order."""
    if not paths:
        raise PredictError("source: expected at least one image, got an empty list")
    for path in paths:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise PredictError(
                f"{path}: expected an image ({' '.join(IMAGE_SUFFIXES)})"
            )
        _check_regular(path)
    return _images(paths[0].resolve().parent.name, paths, part)


def _from_glob(pattern: str, part: Part) -> Source:
    if not glob.has_magic(pattern):
        raise PredictError(f"{pattern}: no such file or folder")
    paths = [Path(p) for p in glob.glob(pattern, recursive=True)]
    paths = [p for p in paths if p.is_file()]
    if not paths:
        raise PredictError(f"{pattern}: matches no file")
    images = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES]
    if len(paths) == 1 and not images:
        return _video(paths[0], part)
    if len(images) != len(paths):
        other = sorted(set(paths) - set(images))[0]
        raise PredictError(
            f"{pattern}: expected images or one video file,"
            f" got {len(paths)} files, among them {other.name}"
        )
    images.sort(key=natural_order)
    return _images(images[0].resolve().parent.name, images, part)


def _images_in(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if not p.name.startswith(".")]
    images = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES]
    suffixes = " ".join(IMAGE_SUFFIXES)
    if not images:
        raise PredictError(f"{folder}: expected images ({suffixes}), found none")
    others = [p for p in paths if p.suffix.lower() in OTHER_IMAGE_SUFFIXES]
    if others:
        first = min(others, key=natural_order)
        raise PredictError(f"{first}: expected no images but {suffixes} among frames")
    for path in images:
        _check_regular(path)
    return sorted(images, key=natural_order)


def _check_regular(path: Path) -> None:
    """Raises PredictError for a pipe, device or dead link, which may be endless."""
    kinds = {
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a folder",
    }
    if path.is_file():
        return
    got = "a broken link"
    if path.exists():
        got = kinds.get(stat.S_IFMT(path.stat().st_mode), "a device")
    raise PredictError(f"{path}: expected a regular file, got {got}")


def _images(name: str, paths: list[Path], part: Part) -> Source:
    timed = ((float(i / FOLDER_FPS), path) for i, path in enumerate(paths))
    folder, paths = paths[0].parent, [path for _, path in part.chosen(timed)]
    if not paths:
        raise PredictError(f"{folder}: has no frame {part.when()}")
    rate = part.rate(FOLDER_FPS)
    height, width = _image_size(paths[0])
    check_bounds(str(paths[0]), height, width)
    for path in paths[1:]:
        check_same_size(str(path), _image_size(path), (height, width))
    return Source(
        name=name,
        path=str(paths[0].parent),
        height=height,
        width=width,
        num_frames=len(paths),
        fps=rate,
        file_names=tuple(path.name for path in paths),
        read=partial(_read_images, paths, rate),
    )


def _image_size(path: Path) -> tuple[int, int]:
    """Returns height and width of the upright image, from its header alone."""
    try:
        with open_image(path, partial(DataError, path)) as image:
            size, mode = upright_size(image), image.mode
    except DataError as error:
        raise _unreadable(path, error) from error
    if mode[0] in "IF":  # 16 bits and more: conversion to 8 bits would clip
        raise PredictError(f"{path}: expected 8 bits a channel, got mode {mode}")
    return size


def _read_images(paths: list[Path], rate: Fraction) -> Iterator[DecodedFrame]:
    for number, path in enumerate(paths):
        fail = partial(DataError, path)
        try:
            with open_image(path, fail) as image:
                pixels = read_rgb(image, fail)
        except DataError as error:
            raise _unreadable(path, error) from error
        yield DecodedFrame(pixels, float(number / rate))


def _unreadable(path: Path, error: DataError) -> PredictError:
    """Describes a damaged image to a user of `predict`."""
    text = str(error)
    if error.expected == WHOLE:
        text = f"{path}: not a readable image: {error.got}"
    if error.expected == ONE_IMAGE:
        text = (
            f"{path}: expected a still image, got {error.got} frames; make a video or a"
            " folder of images of them"
        )
    return PredictError(printable(text))


def _video(path: Path, part: Part) -> Source:
    """Opens a video file and decodes its first frame."""
    # FFmpeg would read a relative path up to a colon as a protocol. A playlist may
    # name local files, but no network addresses.
    what = Input(str(path), str(path.absolute()), path=path)
    with closing(VideoReader(what, part)) as reader:
        fps = reader.fps or FOLDER_FPS
    sound = None
    if reader.sound_codec is not None and reader.begin is not None:
        sound = Sound(str(path.absolute()), reader.sound_codec, float(reader.begin))
    warnings: list[str] = []

    def read() -> Iterator[DecodedFrame]:
        frames = VideoReader(what, part)
        yield from frames
        warnings[:] = [f"{path}: {frames.damage}"] if frames.damage else []

    return Source(
        name=path.stem,
        path=str(path),
        height=reader.height,
        width=reader.width,
        num_frames=None,
        fps=part.rate(fps),
        pixel_aspect=reader.pixel_aspect,
        read=read,
        warnings=warnings,
        said_frames=part.frames_of(reader.said_frames, fps),
        sound=sound,
        dynamic_range=hdr.NAMES.get(reader.transfer or 0, ""),
    )
