"""Embeds frames as images in the page."""

import base64
import io
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from vis_jax.formats.rle import MAX_PIXELS
from vis_jax.formats.tracks import Id
from vis_jax.formats.unpack import read_json
from vis_jax.report.tubes import ShownFrames

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # decoders of others start programs
QUALITIES = (50, 20, 1)  # WebP, 0 .. 100; the first that fits is used
PICTURE_BYTES = 60_000  # maximum size of a picture's data URI
_SHOWN = 100  # characters of a name in an error


@runtime_checkable
class Frames(Protocol):
    """Reads frames of videos."""

    def __call__(self, video_id: Id, frame: int) -> np.ndarray | None:
        """Returns uint8 [H, W, 3], RGB; None if there is no such frame."""
        ...


class FolderFrames:
    """Reads frames from a folder by the `file_names` of a ground-truth file.

    Args:
      folder: the names are relative to it.
      truth_path: the ground-truth file.

    Raises:
      FormatError: the ground-truth file cannot be read.
      ValueError: the folder contains none of the frames.
    """

    def __init__(
        self, folder: str | os.PathLike, truth_path: str | os.PathLike
    ) -> None:
        self._folder = os.path.abspath(folder)
        self._names: dict[object, list] = {}
        content = read_json(truth_path)
        videos = content.get("videos") if isinstance(content, dict) else None
        for entry in videos if isinstance(videos, list) else ():
            names = entry.get("file_names") if isinstance(entry, dict) else None
            if isinstance(names, list):
                self._names[entry.get("id")] = names
        firsts = [names[0] for names in self._names.values() if names]
        if not any(self._path(name) for name in firsts):
            none = "frames (the truth has no file_names)"
            example = str(firsts[0])[:_SHOWN] if firsts else none
            raise ValueError(
                f"--frames: expected a folder with {example}, got {os.fspath(folder)}"
            )

    def __call__(self, video_id: Id, frame: int) -> np.ndarray | None:
        """Like `Frames`, upright; None also for unreadable or too large images."""
        names = self._names.get(video_id, [])
        path = self._path(names[frame]) if frame < len(names) else None
        if path is None:
            return None
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None

    def _path(self, name: object) -> Path | None:
        """Resolves a file name; None if there is no such file inside the folder.

        Symbolic links may lead outside: the folder is trusted, the names are not.
        """
        if not isinstance(name, str) or "\0" in name:
            return None
        path = os.path.normpath(os.path.join(self._folder, name))
        inside = path.startswith(os.path.join(self._folder, ""))
        try:
            return Path(path) if inside and os.path.isfile(path) else None
        except OSError:  # such as a name that is too long
            return None


def data_uri(pixels: np.ndarray, view: ShownFrames) -> str:
    """Encodes a frame as a data URI.

    Args:
      pixels: uint8 [H, W, 3], RGB.
      view: with the size to show it at.
    """
    image = Image.fromarray(pixels)
    if image.size != (view.width, view.height):
        image = image.resize((view.width, view.height), Image.Resampling.BILINEAR)
    text = ""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=2)
        text = base64.b64encode(file.getvalue()).decode()
        if len(text) < PICTURE_BYTES:
            break
    return f"data:image/webp;base64,{text}"
