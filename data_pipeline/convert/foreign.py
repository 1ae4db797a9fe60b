"""Parts that the converters of other layouts share: videos, tracks, where from."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from data_pipeline.datasets.dataset import Category
from data_pipeline.datasets.ytvis_json import MAX_FRAMES, stays_inside
from data_pipeline.datasets.ytvis_masks import read_mask
from data_pipeline.errors import DataError, shorten
from vis_jax.formats.rle import areas_of_runs, compress_mask, plain_mask


class Image(NamedTuple):
    """An image to be taken over."""

    source: Path
    name: str  # relative to JPEGImages/
    size: tuple[int, int]  # height, width that it must have


class Prepared(NamedTuple):
    """A data set in the YouTube-VIS format, not written yet."""

    content: dict  # of the annotation file
    images: tuple[Image, ...]
    left_out: tuple[str, ...]  # what has no place in it, a line each
    linked: int = 0  # labels that had no identity in the source


class ForeignLabel(NamedTuple):
    """One object in one frame, without an identity."""

    category: str
    crowd: bool
    frame: int
    mask: dict  # as in `ForeignTrack`


@runtime_checkable
class Linker(Protocol):
    """Gives identities to the labels of a video."""

    def __call__(self, labels: Sequence[ForeignLabel], /) -> list[int]:
        """Returns an identity for each label: equal ones are one object, which has one
        category and at most one label in a frame."""
        ...


class Found(NamedTuple):
    """A layout that was recognised."""

    layout: str
    why: str  # what it was recognised by
    read: "Callable[[], Foreign | Prepared]"


class ForeignVideo(NamedTuple):
    """Frames of one video."""

    name: str  # of its folder in what is written
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
    tracks: Callable[[int], Iterable[ForeignTrack]]  # of a video, read when asked for
    categories: tuple[Category, ...] | None  # None: the names of the tracks, sorted
    left_out: Callable[[], tuple[str, ...]] = tuple  # asked when all has been read
    # What has no identity in the files, of a video ..
    labels: Callable[[int], Sequence[ForeignLabel]] = lambda index: ()
    identity: str = ""  # .. and the field that would state it.


def describe(foreign: Foreign, progress: bool, link: Linker | None = None) -> Prepared:
    """Reads all tracks; ids of videos and tracks count from 1.

    Args:
      foreign: what to read.
      progress: show a bar.
      link: gives identities to labels that have none.

    Raises:
      DataError: a defect of the files; labels without identities and no `link`.
    """
    videos, images, tracks, linked = [], [], [], 0
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
    categories = foreign.categories
    if categories is None:
        names = sorted({track.category for _, _, track in tracks})
        categories = tuple(Category(k, name) for k, name in enumerate(names, start=1))
    ids = {category.name: category.category_id for category in categories}
    content = {
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
    return Prepared(content, tuple(images), foreign.left_out(), linked)


def _linked(
    labels: Sequence[ForeignLabel],
    video: ForeignVideo,
    link: Linker | None,
    identity: str,
) -> list[ForeignTrack]:
    """Labels as tracks, in the order of their first labels."""
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
    fail: Callable[..., DataError],
) -> list[ForeignTrack]:
    """Labels with an identity each as tracks, in the order of their first labels.

    Raises:
      DataError: an identity of two categories, or twice in a frame.
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
    """A video as the annotation file has it."""
    names = list(file_names)
    height, width = size
    extents = {"height": height, "width": width, "length": len(names)}
    return {"id": number, "name": name, **extents, "file_names": names}


def track_fields(
    masks: list[dict | None], size: tuple[int, int], crowd: bool
) -> dict[str, object]:
    """All of an annotation but its ids; boxes and areas are those of the masks."""
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


def encode(mask: np.ndarray) -> dict | None:
    """Run lengths of a mask [H, W]; None where it has no pixel."""
    if not mask.any():
        return None
    return plain_mask(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def convert(
    segmentation: object, size: tuple[int, int], fail: Callable[..., DataError]
) -> dict | None:
    """Polygons or run lengths from a file, checked, as compressed run lengths.

    Args:
      segmentation: as in the file.
      size: height and width of the frame.
      fail: makes the error, given `field`, `expected` and `got`.

    Returns:
      Run lengths with text for counts; None where there is no pixel.

    Raises:
      DataError: no mask of this size.
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
    """The pixels of any of these masks."""
    return masks[0] if len(masks) == 1 else plain_mask(coco_mask.merge(masks))


def _frame_names(video: ForeignVideo) -> list[str]:
    """Names relative to JPEGImages/, as the reader takes them."""
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
    """JPEG and PNG stay what they are; all else becomes JPEG."""
    kept = file.suffix.lower() in (".jpg", ".jpeg", ".png")
    return file.name if kept else f"{file.stem}.jpg"
