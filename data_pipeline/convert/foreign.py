"""Types and functions shared by the converters of other layouts."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data_pipeline.datasets.dataset import Category
from data_pipeline.datasets.ytvis_json import MAX_FRAMES, is_number, stays_inside
from data_pipeline.datasets.ytvis_masks import read_mask
from data_pipeline.errors import DataError, Fail, shorten
from vis_jax.formats.rle import areas_of_runs, compress_mask, plain_mask


class Image(NamedTuple):
    """An image to copy or link."""

    source: Path
    name: str  # relative to JPEGImages/
    size: tuple[int, int]  # expected height, width


class PreparedSplit(NamedTuple):
    """A data set in YouTube-VIS format, not yet written."""

    content: dict  # content of the annotation file
    images: tuple[Image, ...]
    left_out: tuple[str, ...]  # content that was dropped, a line each
    linked: int = 0  # number of labels without identity in the source


class ForeignLabel(NamedTuple):
    """One object in one frame, without an identity."""

    category: str
    crowd: bool
    frame: int
    mask: dict  # as in `ForeignTrack`


@runtime_checkable
class IdentityLinker(Protocol):
    """Assigns identities to the labels of a video."""

    def __call__(self, labels: Sequence[ForeignLabel], /) -> list[int]:
        """Returns an identity per label.

        Labels of one object share it; an object has one category and at most one label
        per frame.
        """
        ...


class DetectedLayout(NamedTuple):
    """A detected layout."""

    layout: str
    why: str  # evidence for the layout
    read: "Callable[[], Foreign | PreparedSplit]"


class ForeignVideo(NamedTuple):
    """Frames of one video."""

    name: str  # name of its output folder
    files: tuple[Path, ...]  # in order
    size: tuple[int, int]  # height, width


class ForeignTrack(NamedTuple):
    """One object of a video of T frames."""

    category: str
    crowd: bool
    masks: list[dict | None]  # [T], compressed run lengths with text for counts


class Foreign(NamedTuple):
    """A data set in another layout."""

    videos: tuple[ForeignVideo, ...]
    tracks: Callable[[int], Iterable[ForeignTrack]]  # by video, read lazily
    categories: tuple[Category, ...] | None  # None: the names of the tracks, sorted
    left_out: Callable[[], tuple[str, ...]] = tuple  # called after reading
    # Labels of a video without identities in the files, ..
    labels: Callable[[int], Sequence[ForeignLabel]] = lambda index: ()
    identity: str = ""  # .. and the field that would state it.


def describe(
    foreign: Foreign, progress: bool, link: IdentityLinker | None = None
) -> PreparedSplit:
    """Reads all tracks and converts them; ids of videos and tracks count from 1.

    Args:
      foreign: data set to read.
      progress: show a bar.
      link: assigns identities to labels without them.

    Raises:
      DataError: a defect of the files, or labels without identities and no `link`.
    """
    videos, images, tracks, linked, unseen = [], [], [], 0, 0
    bar = tqdm(foreign.videos, "annotations", disable=not progress)
    for number, video in enumerate(bar, start=1):
        names = _frame_names(video)
        videos.append(video_entry(number, video.name, video.size, names))
        here = zip(video.files, names, strict=True)
        images += [Image(file, name, video.size) for file, name in here]
        labels = foreign.labels(number - 1)
        linked += len(labels)
        found = [*foreign.tracks(number - 1)]
        found += _linked(labels, video, link, foreign.identity)
        for track in found:
            if any(mask is not None for mask in track.masks):
                tracks.append((number, video, track))
            else:
                unseen += 1
    categories = foreign.categories
    if categories is None:
        names = sorted({track.category for _, _, track in tracks})
        categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    left_out = foreign.left_out()
    if unseen:
        left_out += (f"{unseen} objects without a pixel in any frame",)
    content = _content(videos, categories, tracks)
    return PreparedSplit(content, tuple(images), left_out, linked)


def _content(
    videos: list[dict],
    categories: tuple[Category, ...],
    tracks: list[tuple[int, ForeignVideo, ForeignTrack]],
) -> dict:
    """Makes the annotation file; a track comes with its video and the video's id."""
    ids = {category.name: category.category_id for category in categories}
    return {
        "info": {"description": "YouTube-VIS format"},
        "licenses": [],
        "videos": videos,
        "categories": [
            {"id": c.category_id, "name": c.name, "supercategory": "object"}
            for c in categories
        ],
        "annotations": [
            {"id": k, "video_id": number, "category_id": ids[track.category]}
            | track_fields(track.masks, video.size, track.crowd)
            for k, (number, video, track) in enumerate(tracks, start=1)
        ],
    }


def _linked(
    labels: Sequence[ForeignLabel],
    video: ForeignVideo,
    link: IdentityLinker | None,
    identity: str,
) -> list[ForeignTrack]:
    """Links labels to tracks, in order of their first labels."""
    if not labels:
        return []
    if link is None:
        place = video.files[0].parent if video.files else video.name
        expected = "the identity of each object over the frames"
        expected += f", as {identity}," if identity else ""
        expected += " or --link, which gives it by overlap"
        got = f"{len(labels)} label{'s' if len(labels) != 1 else ''} without"
        raise DataError(place, video=video.name, expected=expected, got=got)
    identified = list(zip(link(labels), labels, strict=True))
    return join_tracks(identified, video, partial(DataError, video.name))


def join_tracks(
    labels: Iterable[tuple[object, ForeignLabel]],
    video: ForeignVideo,
    fail: Fail,
) -> list[ForeignTrack]:
    """Joins labels with identities to tracks, in order of their first labels.

    Raises:
      DataError: an identity has two categories, or occurs twice in a frame.
    """
    tracks: dict[object, ForeignTrack] = {}
    for identity, label in labels:
        if identity not in tracks:
            empty: list[dict | None] = [None] * len(video.files)
            tracks[identity] = ForeignTrack(label.category, False, empty)
        track = tracks[identity]
        place = f"frame {label.frame}, identity {shorten(identity)}"
        if track.category != label.category:
            expected = f"{track.category!r}, as in an earlier frame"
            got = repr(label.category)
            raise fail(video=video.name, field=place, expected=expected, got=got)
        if track.masks[label.frame] is not None:
            expected = "one label in a frame for an identity"
            raise fail(video=video.name, field=place, expected=expected, got="another")
        track.masks[label.frame] = label.mask
        tracks[identity] = track._replace(crowd=track.crowd or label.crowd)
    return list(tracks.values())


def video_entry(
    number: int, name: str, size: tuple[int, int], file_names: Iterable[str]
) -> dict:
    """Makes the entry of a video in the annotation file."""
    names = list(file_names)
    height, width = size
    extents = {"height": height, "width": width, "length": len(names)}
    return {"id": number, "name": name, **extents, "file_names": names}


def track_fields(
    masks: list[dict | None], size: tuple[int, int], crowd: bool
) -> dict[str, object]:
    """Makes an annotation without ids; boxes and areas are computed from masks."""
    boxes = [None if m is None else coco_mask.toBbox(m).tolist() for m in masks]
    areas = [None if m is None else int(coco_mask.area(m)) for m in masks]
    return {
        "iscrowd": int(crowd),
        "height": size[0],
        "width": size[1],
        "length": len(masks),
        "segmentations": masks,
        "bboxes": boxes,
        "areas": areas,
    }


def is_point(value: object) -> TypeGuard[list[float]]:
    """Returns whether a value of a JSON file is a list of two finite numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def plain_identity(value: int | str) -> str:
    """Returns an identity as text; 7, "7" and "07" are equal."""
    text = str(value)
    number = text.isascii() and text.isdecimal()
    return (text.lstrip("0") or "0") if number else text


def encode(mask: np.ndarray) -> dict | None:
    """Encodes a mask [H, W] as run lengths; None if it is empty."""
    if not mask.any():
        return None
    return plain_mask(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def convert(segmentation: object, size: tuple[int, int], fail: Fail) -> dict | None:
    """Checks polygons or run lengths and converts them to compressed run lengths.

    Args:
      segmentation: as in the file.
      size: height and width of the frame.
      fail: makes the error from `field`, `expected` and `got`.

    Returns:
      Run lengths with string counts; None if there are no pixels.

    Raises:
      DataError: not a mask of this size.
    """
    height, width = size

    def here(field: str, expected: str, got: object) -> DataError:
        place = "segmentation" + (f".{field}" if field else "")
        return fail(field=place, expected=expected, got=got)

    runs = read_mask(segmentation, height=height, width=width, here=here)
    if not areas_of_runs(runs)[0]:
        return None
    return plain_mask(compress_mask(runs, 0, height=height, width=width))


def union(masks: list[dict]) -> dict:
    """Returns the union of masks."""
    return masks[0] if len(masks) == 1 else plain_mask(coco_mask.merge(masks))


def _frame_names(video: ForeignVideo) -> list[str]:
    """Returns names relative to JPEGImages/, as expected by the reader."""
    fail = partial(DataError, video.files[0].parent if video.files else video.name)
    if not 1 <= len(video.files) <= MAX_FRAMES:
        expected = f"1 to {MAX_FRAMES} frames with annotations"
        raise fail(video=video.name, expected=expected, got=len(video.files))
    names = [f"{video.name}/{target_name(file)}" for file in video.files]
    for name in names:
        if not stays_inside(name):
            expected = "names without ':', '\\' and '..'"
            raise fail(video=video.name, expected=expected, got=name)
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise fail(video=video.name, expected="frames with a name each", got=twice)
    return names


def target_name(file: Path) -> str:
    """Returns the output name: JPEG and PNG are kept, other formats become JPEG."""
    kept = file.suffix.lower() in (".jpg", ".jpeg", ".png")
    return file.name if kept else f"{file.stem}.jpg"
