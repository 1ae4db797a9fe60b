"""Opens every image of the project: few formats, bounded sizes, upright, 8 bits.

Pillow chooses a decoder by the content of a file, whatever its name, and some of its
decoders start other programs. Only those of `FORMATS` are allowed here.
"""

import os
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_pipeline.errors import DataError
from vis_jax.formats.rle import MAX_PIXELS

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # MPO comes as JPEG
MAX_SIDE = 16_384  # pixels, of a frame
JPEG_QUALITY = 95  # of images that are encoded anew
MAX_BYTES = 2**30  # of an image file
WHOLE, ONE_IMAGE = "a whole image", "a file with one image"  # `expected` in errors
ORIENTATION = 0x0112  # the Exif tag; 1 is upright, 5 to 8 lie on their side

# What decoders without a sense of orientation read with the same pixels.
_PLAIN_FORMATS = ("JPEG", "MPO", "PNG")
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")

# Pillow warns of what is larger than it likes; here MAX_PIXELS is the bound.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What it says of damaged metadata names no file, and comes from the middle of a run.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Fail = Callable[..., DataError]


def open_image(file: Path | BytesIO, fail: Fail) -> Image.Image:
    """An image that has not been decoded yet.

    Args:
      file: a regular file, or the content of one.
      fail: makes the error, given `expected` and `got`, and maybe `field`.

    Raises:
      DataError: no image of `FORMATS`, several in one file, or one beyond the bounds.
    """
    if isinstance(file, Path):
        _check_regular(file, fail)
    image = None
    try:
        image = Image.open(file, formats=FORMATS)
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception as error:  # each of Pillow's decoders has errors of its own
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
    """Height and width as the Exif orientation has them; decodes nothing."""
    sides = image.height, image.width
    if image.format == "TIFF":  # Pillow gives its upright size
        return sides
    return sides[::-1] if orientation(image) >= 5 else sides


def orientation(image: Image.Image) -> int:
    """The Exif orientation, 1 to 8; 1 where there is none."""
    try:
        number = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged Exif says nothing
        return 1
    return number if number in range(1, 9) else 1


def is_plain(image: Image.Image) -> bool:
    """Whether a JPEG or PNG decoder without a sense of orientation has its pixels."""
    known = image.format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES
    return known and orientation(image) == 1


def read_rgb(image: Image.Image, fail: Fail) -> np.ndarray:
    """The upright pixels: uint8 [H, W, 3], RGB.

    Args:
      image: from `open_image`.
      fail: as for `open_image`.

    Raises:
      DataError: a file that is cut off, of colours that cannot become RGB, or of
        more than 8 bits a grey level, for which there is no telling where black and
        white are.
    """
    if image.mode[0] in "IF":
        raise fail(expected="8 bits a channel", got=f"mode {image.mode}")
    upright = turned(image, fail)
    try:
        return np.asarray(upright.convert("RGB"))
    except Exception as error:  # as above; such as those of a damaged palette
        got = f"mode {upright.mode}: {error}"
        raise fail(expected="colours that become RGB", got=got) from error


def turned(image: Image.Image, fail: Fail) -> Image.Image:
    """The image as its Exif orientation says, decoded, in its own mode.

    Raises:
      DataError: a file that is cut off.
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
    """Pixels uint8 [H, W, 3] as a PNG, quickly made."""
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=0)
    return target.getvalue()


def check_inside(path: Path, root: Path) -> Path:
    """The file that a path means, links followed.

    Args:
      path: of a file of a data set.
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
    """A pipe or a device would keep the reader waiting, or never end."""
    try:
        found = os.stat(file)
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise fail(expected=WHOLE, got=reason) from error
    if not stat.S_ISREG(found.st_mode):
        raise fail(expected="a regular file", got="something else")
    if found.st_size > MAX_BYTES:
        raise fail(expected=f"at most {MAX_BYTES} bytes", got=found.st_size)
