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
from vis_jax.report.tubes import View

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # others start programs
QUALITIES = (50, 20, 1)  # of WebP, 0 .. 100: the first with which a picture fits
PICTURE_BYTES = 60_000  # of the text of a picture
_SHOWN = 100  # characters of a name in an error


@runtime_checkable
class Frames(Protocol):
    """Reads frames of videos."""

    def __call__(self, video_id: Id, frame: int) -> np.ndarray | None:
        """uint8 [H, W, 3], RGB; None if there is no such frame."""
        ...


class FolderFrames:
    """Frames in a folder, by the `file_names` of a truth file.

    Args:
      folder: that the names are relative to.
      truth_path: the truth file.

    Raises:
      FormatError: the truth file cannot be read.
      ValueError: the folder has none of the frames.
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
        """As `Frames`, upright; None also for what is no image or too large."""
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

        Links in the folder may lead elsewhere: names are not trusted, the folder is.
        """
        if not isinstance(name, str) or "\0" in name:
            return None
        path = os.path.normpath(os.path.join(self._folder, name))
        inside = path.startswith(os.path.join(self._folder, ""))
        try:
            return Path(path) if inside and os.path.isfile(path) else None
        except OSError:  # such as for a name that is too long
            return None


def data_uri(pixels: np.ndarray, view: View) -> str:
    """A frame as text that a page can hold.

    Args:
      pixels: uint8 [H, W, 3], RGB.
      view: gives the size.
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
