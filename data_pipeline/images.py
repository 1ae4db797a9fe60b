"""Opens images safely: few formats, bounded sizes, upright, 8 bits.

Pillow chooses a decoder by file content, and some decoders start other programs, so
only those of `FORMATS` are allowed.
"""

import os
import stat
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_pipeline.errors import DataError, Fail
from vis_jax.formats.rle import MAX_PIXELS

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # MPO is opened as JPEG
MAX_SIDE = 16_384  # pixels, of a frame
JPEG_QUALITY = 95  # quality of re-encoded images
MAX_BYTES = 2**30  # maximum size of an image file
WHOLE, ONE_IMAGE = "a whole image", "a file with one image"  # `expected` in errors
ORIENTATION = 0x0112  # Exif tag; 1 is upright, 5 to 8 are rotated by 90 degrees

# Formats and modes that decoders ignoring orientation read with the same pixels.
_PLAIN_FORMATS = ("JPEG", "MPO", "PNG")
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")

# Pillow warns of large images; here MAX_PIXELS is the limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Its warnings about damaged metadata name no file, and interrupt the output of a run.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_image(file: Path | BytesIO, fail: Fail) -> Image.Image:
    """Opens an image without decoding it.

    Args:
      file: a regular file, or the content of one.
      fail: makes the error from `expected` and `got`, and optionally `field`.

    Raises:
      DataError: not an image of `FORMATS`, several in one file, or too large.
    """
    if isinstance(file, Path):
        _check_regular(file, fail)
    image = None
    try:
        image = Image.open(file, formats=FORMATS)
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception as error:  # Pillow's decoders raise various errors
        if image is not None:
            image.close()
        reason = f"{type(error).__name__}: {error}"
        raise fail(expected=WHOLE, got=reason) from error
    sides = image.height, image.width
    if frames != 1:
        image.close()
        raise fail(expected=ONE_IMAGE, got=f"one with {frames}")
    if max(sides) > MAX_SIDE or sides[0] * sides[1] > MAX_PIXELS:
        image.close()
        expected = f"at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"
        raise fail(expected=expected, got=sides)
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns height and width after Exif rotation, without decoding."""
    sides = image.height, image.width
    if image.format == "TIFF":  # Pillow reports the upright size
        return sides
    return sides[::-1] if orientation(image) >= 5 else sides


def orientation(image: Image.Image) -> int:
    """Returns the Exif orientation, 1 to 8; 1 if absent."""
    try:
        number = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged Exif is ignored
        return 1
    return number if number in range(1, 9) else 1


def is_plain(image: Image.Image) -> bool:
    """Whether a JPEG or PNG decoder that ignores orientation gives the same pixels."""
    known = image.format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES
    return known and orientation(image) == 1


def read_rgb(image: Image.Image, fail: Fail) -> np.ndarray:
    """Decodes the upright pixels: RGB uint8 [H, W, 3].

    Args:
      image: image from `open_image`.
      fail: as in `open_image`.

    Raises:
      DataError: the file is truncated, its colours cannot become RGB, or it has more
        than 8 bits per grey level, so that black and white are undefined.
    """
    if image.mode[0] in "IF":
        raise fail(expected="8 bits a channel", got=f"mode {image.mode}")
    upright = turned(image, fail)
    try:
        return np.asarray(upright.convert("RGB"))
    except Exception as error:  # as above, e.g. for a damaged palette
        got = f"mode {upright.mode}: {error}"
        raise fail(expected="colours that become RGB", got=got) from error


def turned(image: Image.Image, fail: Fail) -> Image.Image:
    """Decodes an image and applies its Exif orientation; keeps its mode.

    Raises:
      DataError: the file is truncated.
    """
    try:
        image.load()
        if orientation(image) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception as error:  # as above
        reason = f"{type(error).__name__}: {error}"
        raise fail(expected=WHOLE, got=reason) from error


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes pixels uint8 [H, W, 3] as a PNG, with fast compression."""
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=0)
    return target.getvalue()


def check_inside(path: Path, root: Path) -> Path:
    """Resolves a path, following links.

    Args:
      path: file of a data set.
      root: folder of the data set; may itself be a link.

    Raises:
      DataError: the path leads out of the folder.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        expected = f"a path that stays inside {root}"
        raise DataError(path, expected=expected, got=f"one to {real}")
    return real


def _check_regular(file: Path, fail: Fail) -> None:
    """Rejects pipes and devices, which may block or never end."""
    try:
        found = os.stat(file)
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise fail(expected=WHOLE, got=reason) from error
    if not stat.S_ISREG(found.st_mode):
        raise fail(expected="a regular file", got="something else")
    if found.st_size > MAX_BYTES:
        raise fail(expected=f"at most {MAX_BYTES} bytes", got=found.st_size)
