"""Names of image files: which are read, and in which order."""

import re
from pathlib import PurePath

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def natural_order(path: PurePath) -> tuple:
    """A sort key with numbers by value, whatever the case: img_2 before IMG_10."""
    return tuple(_pieces(part) for part in path.parts), str(path)


def _pieces(name: str) -> tuple:
    """Text and numbers in turn, text first."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(_number(p) if k % 2 else p for k, p in enumerate(parts))


def _number(digits: str) -> tuple[int, str]:
    """Sorts as the number does; int() refuses thousands of digits."""
    digits = digits.lstrip("0")
    return len(digits), digits
