"""Converts MOTS and KITTI MOTS: instances in 16-bit PNGs or lines of a text file.

Voigtlaender et al., "MOTS: Multi-Object Tracking and Segmentation", CVPR 2019. An id is
1000 * class + instance; 10000 marks ignore regions, which are dropped.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignTrack,
    ForeignVideo,
    convert,
    encode,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    check_size,
    frame_number,
    image_size,
    read_ids,
)
from data_pipeline.datasets.dataset import Category
from data_pipeline.errors import DataError
from data_pipeline.file_names import IMAGE_SUFFIXES

LOOKED_FOR = (
    "instances/ with folders of 16-bit PNGs, instances_txt/, or folders with gt/gt.txt,"
    " and images in training/image_02/, images/, train/ or img1/ of a sequence"
)
CATEGORIES = (Category(1, "car"), Category(2, "pedestrian"))
_NAMES = {category.category_id: category.name for category in CATEGORIES}
_IGNORE = 10_000
_MAX_TEXT = 2**30  # bytes
_IMAGES = (
    "{split}/image_02", "training/image_02", "image_02", "{split}/images", "images",
    "{split}", "",
)  # fmt: skip
Masks = dict[int, list[dict | None]]  # by id, an entry for each frame


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises instance PNGs first, then text files.

    Raises:
      DataError: the images of a sequence are missing.
    """
    for folder in source.candidates("{split}/instances", "instances"):
        pngs = {f.name: f for f in source.folders(folder) if source.files(f, ".png")}
        if pngs:
            why = f"{show(source, folder)}/ has folders of PNGs"
            return DetectedLayout("mots", why, partial(_read, source, pngs, _read_pngs))
    for folder in source.candidates("{split}/instances_txt", "instances_txt"):
        texts = {file.stem: file for file in source.files(folder, ".txt")}
        if texts:
            why = f"{show(source, folder)}/ has text files"
            return DetectedLayout(
                "mots", why, partial(_read, source, texts, _read_text)
            )
    for folder in source.candidates("{split}", ""):
        texts = {
            f.name: f / "gt/gt.txt"
            for f in source.folders(folder)
            if (f / "gt/gt.txt").is_file() and (f / "img1").is_dir()
        }
        if texts:
            why = f"{show(source, folder)}/ has folders with gt/gt.txt and img1/"
            return DetectedLayout(
                "mots", why, partial(_read, source, texts, _read_text)
            )
    return None


def _read(source: SourceFolder, truths: dict[str, Path], read: Callable) -> Foreign:
    ignored = 0
    videos, frames = [], []
    for name in truths:
        files = _images(source, name, truths[name])
        numbers = [frame_number(file) for file in files]
        if len(set(numbers)) < len(numbers):
            expected = "images with a number each"
            raise DataError(files[0].parent, expected=expected, got="one used twice")
        places = {number: k for k, number in enumerate(numbers)}
        videos.append(ForeignVideo(name, tuple(files), image_size(files[0])))
        frames.append(places)

    def tracks(index: int) -> list[ForeignTrack]:
        nonlocal ignored
        video = videos[index]
        truth = truths[video.name]
        masks: Masks = read(source, truth, video, frames[index])
        regions = masks.pop(_IGNORE, [])
        ignored += sum(mask is not None for mask in regions)
        return [_track(truth, number, masks[number]) for number in sorted(masks)]

    def left_out() -> tuple[str, ...]:
        return (f"{ignored} regions to ignore",) if ignored else ()

    return Foreign(tuple(videos), tracks, CATEGORIES, left_out)


def _images(source: SourceFolder, name: str, truth: Path) -> list[Path]:
    places = [folder / name for folder in source.candidates(*_IMAGES)]
    places += [folder / "img1" for folder in places]
    for folder in places:
        files = source.files(folder, *IMAGE_SUFFIXES)
        if files and folder != truth:
            return files
    shown = ", ".join(f"{show(source, folder)}/" for folder in places)
    raise DataError(truth, video=name, expected=f"images in {shown}", got="none")


def _track(truth: Path, number: int, masks: list[dict | None]) -> ForeignTrack:
    kind = number // 1000
    if kind not in _NAMES:
        expected = "ids of 1000 * class + instance, class 1 (car) or 2 (pedestrian)"
        raise DataError(truth, expected=expected, got=number)
    return ForeignTrack(_NAMES[kind], False, masks)


def _read_pngs(
    source: SourceFolder, folder: Path, video: ForeignVideo, places: dict[int, int]
) -> Masks:
    masks: Masks = {}
    for file in source.files(folder, ".png"):
        frame = _frame(file, frame_number(file), places)
        pixels = read_ids(file, video.size)
        for number in np.unique(pixels).tolist():
            track = masks.setdefault(number, [None] * len(places))
            track[frame] = encode(pixels == number)
    masks.pop(0, None)
    return masks


def _read_text(
    source: SourceFolder, file: Path, video: ForeignVideo, places: dict[int, int]
) -> Masks:
    """Reads lines of frame, id, class, height, width and compressed run lengths."""
    check_size(source.inside(file), _MAX_TEXT)
    masks: Masks = {}
    with open(file, encoding="utf-8", errors="replace") as lines:
        for k, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            words = line.split()
            where = f"line {k}"
            if len(words) != 6 or not all(_is_number(word) for word in words[:5]):
                expected = "frame, id, class, height, width and run lengths"
                raise DataError(file, field=where, expected=expected, got=line.strip())
            frame, number, kind, height, width = map(int, words[:5])

            def fail(
                field: str, expected: str, got: object, where: str = where
            ) -> DataError:
                field = f"{where}, {field}"
                return DataError(file, field=field, expected=expected, got=got)

            if kind != number // 1000:
                raise fail("class", f"{number // 1000}, as of id {number}", kind)
            runs = {"size": [height, width], "counts": words[5]}
            mask = convert(runs, video.size, fail)
            here = _frame(file, frame, places, where)
            track = masks.setdefault(number, [None] * len(places))
            if track[here] is not None and number != _IGNORE:
                raise fail("id", f"{number} once in frame {frame}", "it twice")
            track[here] = mask
    return masks


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= 9


def _frame(
    file: Path, number: int, places: dict[int, int], where: str | None = None
) -> int:
    if number not in places:
        low, high = min(places), max(places)
        expected = f"the number of an image, {low} to {high}"
        raise DataError(file, field=where, expected=expected, got=number)
    return places[number]
