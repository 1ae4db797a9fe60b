"""Converts DAVIS: a PNG per frame whose pixel values are object ids.

Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation"; YouTube-VOS
has the same layout. 0 is background; 255 is "not labelled", unless a video has no other
value: DAVIS 2016 marks its only object with it.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignTrack,
    ForeignVideo,
    encode,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    image_size,
    opened,
    read_ids,
)
from data_pipeline.datasets.dataset import Category
from data_pipeline.errors import DataError
from data_pipeline.file_names import IMAGE_SUFFIXES

LOOKED_FOR = "Annotations/ with folders of PNGs beside JPEGImages/"
_VOID = 255
_SOFT_LEVELS = 3  # minimum number of grey levels in a soft outline
_MASKS = tuple(
    f"{place}Annotations{resolution}"
    for place in ("{split}/", "")
    for resolution in ("", "/480p", "/Full-Resolution", "/1080p")
)


def find(source: SourceFolder, category: str) -> DetectedLayout | None:
    """Recognises folders of PNGs in Annotations/, with images of the same names.

    Args:
      source: the folder.
      category: name of the only category, as the format has none.

    Raises:
      DataError: a video listed in the split is missing.
    """
    for masks in source.candidates(*_MASKS):
        images = source.root / show(source, masks).replace("Annotations", "JPEGImages")
        names = _videos(source, masks)
        if names and images.is_dir():
            listed, where = _listed(source, names)
            made = partial(_read, source, masks, images, listed, category)
            why = f"{show(source, masks)}/ has folders of PNGs, beside"
            why += f" {show(source, images)}/{where}"
            return DetectedLayout("davis", why, made)
    return None


def _videos(source: SourceFolder, masks: Path) -> list[str]:
    return [f.name for f in source.folders(masks) if source.files(f, ".png")]


def _listed(source: SourceFolder, names: list[str]) -> tuple[list[str], str]:
    """Returns the videos of the split, and the list in ImageSets/ that names them."""
    lists = [
        file
        for folder in (source.root / "ImageSets", source.root / "ImageSets/2017")
        for file in source.files(folder, ".txt")
    ]
    lists += source.files(source.root / "ImageSets/480p", ".txt")
    chosen = [file for file in lists if file.stem in source.splits]
    if not lists:
        return names, ""
    if not chosen:
        known = ", ".join(sorted({file.stem for file in lists}))
        expected = f"one of those that ImageSets/ lists: {known}"
        raise DataError(source.root, field="split", expected=expected, got=source.split)
    words = source.inside(chosen[-1]).read_text("utf-8-sig", "replace").splitlines()
    wanted = [line.strip() for line in words if line.strip()]
    # As in DAVIS 2016: /JPEGImages/480p/bear/..
    if any("/" in line for line in wanted):
        parts = (line.split()[0].split("/") for line in wanted)
        wanted = [p[-2] for p in parts if len(p) > 1]
    wanted = list(dict.fromkeys(wanted))
    for name in wanted:
        if name not in names:
            expected = "the names of videos that have annotations"
            raise DataError(chosen[-1], expected=expected, got=name)
    return wanted, f"; {show(source, chosen[-1])} lists the split"


def _read(
    source: SourceFolder, masks: Path, images: Path, names: list[str], category: str
) -> Foreign:
    left_out = 0
    videos, ids = [], []
    for name in names:
        found = {f.stem: f for f in source.files(images / name, *IMAGE_SUFFIXES)}
        pngs = source.files(masks / name, ".png")
        missing = [file for file in pngs if file.stem not in found]
        if missing:
            expected = f"an image of this name in {images / name}"
            raise DataError(missing[0], video=name, expected=expected, got="none")
        left_out += len(found) - len(pngs)
        files = tuple(found[file.stem] for file in pngs)
        videos.append(ForeignVideo(name, files, image_size(files[0])))
        ids.append(pngs)
    notes = (f"{left_out} frames without an annotation",) if left_out else ()
    return Foreign(
        tuple(videos),
        lambda index: tracks_of_ids(ids[index], videos[index].size, category),
        (Category(1, category),),
        lambda: notes,
    )


def tracks_of_ids(
    pngs: list[Path], size: tuple[int, int], category: str
) -> list[ForeignTrack]:
    """Reads the objects of a video, by id.

    Args:
      pngs: PNG of each frame.
      size: height and width.
      category: category of all objects.

    Raises:
      DataError: a PNG cannot be read, or has antialiased outlines.
    """
    masks: dict[int, list[dict | None]] = {}
    for frame, file in enumerate(pngs):
        pixels = read_ids(file, size)
        _check_soft(file, pixels)
        for number in np.unique(pixels).tolist():
            track = masks.setdefault(number, [None] * len(pngs))
            track[frame] = encode(pixels == number)
    masks.pop(0, None)
    if len(masks) > 1:
        masks.pop(_VOID, None)
    return [ForeignTrack(category, False, masks[number]) for number in sorted(masks)]


def _check_soft(file: Path, pixels: np.ndarray) -> None:
    """Raises DataError if most values are grey levels of an antialiased outline.

    Such a level fills no 3 x 3 block anywhere, and is adjacent to other levels.
    """
    with opened(file) as image:
        if image.mode != "L" or min(pixels.shape) < 3:  # palettes have no grey levels
            return
    windows = sliding_window_view(pixels, (3, 3))
    middle = pixels[1:-1, 1:-1]
    solid = middle[(windows == middle[..., None, None]).all((2, 3))]
    levels = np.unique(pixels[pixels > 0])
    thin = np.setdiff1d(levels, solid)
    if len(thin) < _SOFT_LEVELS or 2 * len(thin) <= len(levels):
        return
    others = (windows != middle[..., None, None]) & (windows > 0)
    beside = others.any((2, 3))[np.isin(middle, thin)]
    if beside.size and beside.mean() > 0.5:
        shown = ", ".join(map(str, thin[:4].tolist()))
        expected = "one value for each object, with a sharp outline"
        got = f"a soft mask: {len(thin)} grey levels along outlines, such as {shown}"
        raise DataError(file, expected=expected, got=got)
