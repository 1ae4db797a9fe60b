"""Suffixes and sort order of image files."""

import re
from pathlib import PurePath

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def natural_order(path: PurePath) -> tuple:
    """Returns a case-insensitive natural sort key: img_2 before IMG_10."""
    return tuple(_pieces(part) for part in path.parts), str(path)


def _pieces(name: str) -> tuple:
    """Splits a name into alternating text and numbers, text first."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(_number(p) if k % 2 else p for k, p in enumerate(parts))


def _number(digits: str) -> tuple[int, str]:
    """Returns a key that sorts by value; int() rejects thousands of digits."""
    digits = digits.lstrip("0")
    return len(digits), digits
