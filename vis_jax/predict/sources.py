"""Where frames come from: a video file, a folder of images, a glob."""

import glob
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_pipeline.images import FORMATS
from data_pipeline.natural_order import natural_order
from vis_jax.predict.errors import PredictError
from vis_jax.predict.video_file import (
    check_bounds,
    check_same_size,
    read_video,
    scan_video,
)

__all__ = ["FOLDER_FPS", "PredictError", "Source", "open_source"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Pictures, too, but not read: among frames they are an error, not left out.
OTHER_IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".cr2", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif"),
    *(".j2k", ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl", ".nef", ".pbm", ".pgm"),
    *(".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".svg", ".tga"),
)
FOLDER_FPS = Fraction(6)  # YouTube-VIS annotates every fifth frame of 30 a second
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Source:
    """Frames of one video, read anew by each iteration and never held together.

    Iteration gives uint8 [H, W, 3], RGB, upright (rotation in the metadata is done).
    """

    name: str
    path: Path  # the file, or the folder of the first image
    height: int  # pixels, of the upright frame
    width: int
    num_frames: int
    fps: Fraction  # frames a second; of a file without a rate, FOLDER_FPS
    # One per frame; a video file has none, and gets names as YouTube-VIS would.
    file_names: tuple[str, ...] = field(repr=False)
    read: Callable[[], Iterator[np.ndarray]] = field(repr=False)
    # What is odd about the file but lets it be read: one line each, with its name.
    warnings: tuple[str, ...] = ()

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
    _check_regular(path)
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
    images.sort(key=natural_order)
    return _images(images[0].resolve().parent.name, images)


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
    """Raises PredictError for a pipe, a device or a dead link: some have no end."""
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


def _images(name: str, paths: list[Path]) -> Source:
    height, width = _image_size(paths[0])
    check_bounds(str(paths[0]), height, width)
    for path in paths[1:]:
        check_same_size(str(path), _image_size(path), (height, width))
    return Source(
        name=name,
        path=paths[0].parent,
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
            turned &= image.format != "TIFF"  # Pillow gives its upright size
            mode = image.mode
            num_frames = _num_frames(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictError(f"{path}: not a readable image: {error}") from error
    if mode[0] in "IF":  # 16 bits and more: conversion to 8 bits would clip
        raise PredictError(f"{path}: expected 8 bits a channel, got mode {mode}")
    if num_frames > 1:
        raise PredictError(
            f"{path}: expected a still image, got {num_frames} frames; make a video or"
            " a folder of images of them"
        )
    return (width, height) if turned else (height, width)


def _num_frames(image: Image.Image) -> int:
    """Frames of an animation or pages of a TIFF; those of an MPO are views of one."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _read_images(paths: list[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise PredictError(f"{path}: not a readable image: {error}") from error
        yield np.asarray(upright)


def _video(path: Path) -> Source:
    found = scan_video(path)
    return Source(
        name=path.stem,
        path=path,
        height=found.height,
        width=found.width,
        num_frames=found.num_frames,
        fps=found.fps or FOLDER_FPS,
        file_names=tuple(f"{path.stem}/{t:05d}.jpg" for t in range(found.num_frames)),
        read=partial(read_video, path),
        warnings=(f"{path}: {found.damage}",) if found.damage else (),
    )
