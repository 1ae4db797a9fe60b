"""Access to an untrusted folder: confined to it, with bounded sizes."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.datasets.ytvis_json import read_json
from data_pipeline.errors import DataError
from data_pipeline.file_names import IMAGE_SUFFIXES, natural_order
from data_pipeline.images import check_inside, open_image, turned, upright_size

MAX_JSON = 4 * 2**30  # bytes; the largest published file has about 1 GB
MAX_DEPTH = 6  # folders of images within folders
MAX_ENTRIES = 1_000_000  # maximum entries of a folder
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_VALIDATION = ("val", "valid", "validation")


class SourceFolder:
    """A folder in some layout, and the requested split.

    Args:
      root: the folder.
      split: for example "train"; "val", "valid" and "validation" are equivalent.

    Raises:
      DataError: `root` is not a folder, or `split` is not a plain name.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        if not re.fullmatch(r"\w[\w.-]*", split):
            expected = "a name of letters, digits, '-', '_' and '.'"
            raise DataError(root, field="split", expected=expected, got=repr(split))
        if not self.root.is_dir():
            packed = self.root.suffix.lower() in _ARCHIVES and self.root.is_file()
            got = "an archive, which has to be unpacked first" if packed else "none"
            raise DataError(root, expected="a folder", got=got)
        self.split = split
        others = [name for name in _VALIDATION if name != split]
        self.splits = (split, *(others if split in _VALIDATION else ()))
        self._contents: dict[Path, dict] = {}

    def inside(self, path: Path) -> Path:
        """Resolves a path, following links.

        Raises:
          DataError: it lies outside the folder.
        """
        return check_inside(path, self.root)

    def candidates(self, *patterns: str) -> list[Path]:
        """Expands patterns such as "{split}/images" for each name of the split."""
        paths = [
            self.root / pattern.format(split=split)
            for pattern in patterns
            for split in self.splits
        ]
        return list(dict.fromkeys(paths))

    def json(self, path: Path, limit: int = MAX_JSON) -> dict:
        """Reads a JSON file of at most `limit` bytes; caches the last one.

        Raises:
          DataError: too large, or not a JSON object.
        """
        real = self.inside(path)
        if real not in self._contents:
            check_size(real, limit)
            self._contents = {real: read_json(path)}  # keeps only the last one
        return self._contents[real]

    def folders(self, folder: Path) -> list[Path]:
        """Lists subfolders in natural order, without hidden ones."""
        return [path for path in self._entries(folder) if path.is_dir()]

    def files(self, folder: Path, *suffixes: str) -> list[Path]:
        """Lists files with one of these suffixes, in natural order."""
        return [
            path
            for path in self._entries(folder)
            if path.suffix.lower() in suffixes and path.is_file()
        ]

    def _entries(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        found: list[Path] = []
        for path in self.inside(folder).iterdir():
            if len(found) == MAX_ENTRIES:
                expected = f"at most {MAX_ENTRIES} files in a folder"
                raise DataError(folder, expected=expected, got="more")
            if not path.name.startswith("."):
                real = self.inside(path)
                if path.is_symlink() and folder.resolve().is_relative_to(real):
                    expected = "no link to a folder that contains it"
                    raise DataError(path, expected=expected, got=f"one to {real}")
                found.append(folder / path.name)
        return sorted(found, key=natural_order)


def walk_images(
    source: SourceFolder, folder: Path, depth: int = MAX_DEPTH
) -> Iterator[Path]:
    """Yields the images of a folder and its subfolders, in natural order.

    Raises:
      DataError: folders lie deeper than `depth`.
    """
    yield from source.files(folder, *IMAGE_SUFFIXES)
    for inner in source.folders(folder):
        if not depth:
            expected = f"at most {MAX_DEPTH} folders deep"
            raise DataError(inner, expected=expected, got="more")
        yield from walk_images(source, inner, depth - 1)


def frame_number(path: Path) -> int:
    """Returns the last number in a file name.

    Raises:
      DataError: there is none.
    """
    numbers = re.findall(r"[0-9]+", path.stem)
    if not numbers or len(numbers[-1]) > 12:
        raise DataError(path, expected="a name with the frame's number", got=path.name)
    return int(numbers[-1])


def check_size(path: Path, limit: int) -> None:
    """Raises DataError if a file has more than `limit` bytes."""
    size = path.stat().st_size
    if size > limit:
        raise DataError(path, expected=f"at most {limit} bytes", got=size)


def image_size(path: Path) -> tuple[int, int]:
    """Returns height and width of the upright image, reading only its header.

    Raises:
      DataError: not an image, or too large for the reader.
    """
    with opened(path) as image:
        return upright_size(image)


def read_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Reads the integer pixel values of a PNG: int32 [H, W].

    For a palette PNG these are the indices, not the colours.

    Args:
      path: the PNG.
      size: expected height and width.

    Raises:
      DataError: not a PNG, or one that has another size, is in colour, or is truncated.
    """
    with opened(path) as image:
        if image.format != "PNG":  # JPEG would blur the ids
            raise DataError(path, expected="a PNG, as its name says", got=image.format)
        if upright_size(image) != size:
            expected = f"(height, width) = {size}, as the frame"
            raise DataError(path, expected=expected, got=upright_size(image))
        if image.mode not in ("1", "L", "P", "I;16", "I"):
            expected = "a PNG with a palette or of one channel, whose values are ids"
            raise DataError(path, expected=expected, got=f"mode {image.mode}")
        return np.asarray(turned(image, partial(DataError, path))).astype(np.int32)


def opened(path: Path) -> Image.Image:
    """Opens an image without decoding it.

    Raises:
      DataError: as in `images.open_image`.
    """
    return open_image(path, partial(DataError, path))
