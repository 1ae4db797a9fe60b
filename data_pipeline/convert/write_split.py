"""Writes a prepared data set: `instances.json` and `JPEGImages/` of one split."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

from PIL import Image as Pillow
from tqdm import tqdm

from data_pipeline.convert.foreign import Image, PreparedSplit
from data_pipeline.convert.source_folder import opened
from data_pipeline.datasets.ytvis_json import parse_annotations
from data_pipeline.errors import DataError
from data_pipeline.file_names import IMAGE_SUFFIXES
from data_pipeline.images import JPEG_QUALITY, is_plain, read_rgb, upright_size
from vis_jax.formats.disk import replaced_folder


def write_split(
    folder: Path, prepared: PreparedSplit, *, copy: bool, progress: bool
) -> bool:
    """Writes a split, unless it already exists.

    Images are hard-linked where the file system supports it, and copied elsewhere;
    formats other than JPEG and PNG, and images with an Exif rotation, are re-encoded.
    The folder is written atomically.

    Args:
      folder: folder of the split; new, empty, or with the same content.
      prepared: data set to write.
      copy: never link, so that the source may be modified later.
      progress: show a bar.

    Returns:
      Whether something was written.

    Raises:
      DataError: a defect of an image or of `prepared`.
      ValueError: `folder` has other content.
    """
    parse_annotations(prepared.content, folder / "instances.json")
    text = json.dumps(prepared.content, allow_nan=False)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        _check_same(folder, text, prepared.images)
        return False
    with replaced_folder(folder) as temporary:
        (temporary / "JPEGImages").mkdir(parents=True)
        for image in tqdm(prepared.images, "images", disable=not progress):
            _place(image, temporary / "JPEGImages" / image.name, copy)
        (temporary / "instances.json").write_text(text, encoding="utf-8")
    return True


def _check_same(folder: Path, text: str, images: tuple[Image, ...]) -> None:
    """Raises ValueError unless the folder has exactly the content to write."""
    expected = f"{folder}: expected a new folder, or one with the same data"
    file = folder / "instances.json"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        raise ValueError(f"{expected}, got one with other annotations or none")
    for image in images:
        if not (folder / "JPEGImages" / image.name).is_file():
            raise ValueError(f"{expected}, got one without JPEGImages/{image.name}")


def _place(image: Image, target: Path, copy: bool) -> None:
    """Links, copies or re-encodes an image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened(image.source) as found:
        size = upright_size(found)
        if size != image.size:
            expected = f"(height, width) = {image.size}, as the annotations"
            raise DataError(image.source, expected=expected, got=size)
        if not is_plain(found):
            _encode(found, image.source, target)
            return
    source = image.source.resolve()  # else a symbolic link itself would be linked
    if not copy:
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or one without links: copies instead
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def _encode(found: Pillow.Image, source: Path, target: Path) -> None:
    if source.suffix.lower() not in IMAGE_SUFFIXES:
        expected = f"an image with one of the suffixes {', '.join(IMAGE_SUFFIXES)}"
        raise DataError(source, expected=expected, got=found.format)
    pixels = Pillow.fromarray(read_rgb(found, partial(DataError, source)))
    if target.suffix.lower() == ".png":
        pixels.save(target, "PNG")
    else:
        pixels.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
