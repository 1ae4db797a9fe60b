"""Converts COCO with an entry per frame and identities in the annotations."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.convert.coco_videos import group_images, hashable
from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignLabel,
    ForeignTrack,
    ForeignVideo,
    convert,
    plain_identity,
)
from data_pipeline.convert.json_layout import annotation_files, image_folder, show
from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.datasets.coco_json import objects, read_categories, read_images
from data_pipeline.datasets.dataset import Category
from data_pipeline.errors import DataError, Fail

LOOKED_FOR = (
    "a JSON file with a list 'images' ({split}/_annotations.coco.json,"
    " annotations/instances_{split}.json, annotations/instances_default.json ..), whose"
    " annotations have instance_id or track_id, or with --link"
)
_IDENTITY = ("instance_id", "track_id")  # fields of an annotation
# CVAT has it in attributes.
_IDENTITIES = (*_IDENTITY, *(f"attributes.{key}" for key in _IDENTITY))


class _Row(NamedTuple):
    """An annotation, the position of its frame, and its identities by field."""

    entry: dict
    frame: int
    crowd: bool
    stated: dict[str, str]
    fail: Fail


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises the annotation file by its images, their folder by the first of them.

    Raises:
      DataError: a defect of the categories or images, or the images are missing.
    """
    for file, content in annotation_files(source, "images"):
        images = read_images(file, content)
        if not images:
            raise DataError(file, field="images", expected="at least one", got="none")
        first = next(iter(images.values()))["file_name"]
        folder = image_folder(source, file, first)
        why = f"{show(source, file)} has a list 'images', {show(source, folder)}/ has"
        why += f" {first}"
        made = partial(_read, source, file, content, images, folder)
        return DetectedLayout("coco", why, made)
    return None


def _read(
    source: SourceFolder,
    file: Path,
    content: dict,
    images: dict[int, dict],
    folder: Path,
) -> Foreign:
    fail = partial(DataError, file)
    videos, places = _videos(source, group_images(images, content, fail), folder, fail)
    rows = _rows(content, videos, places, fail)
    stated = [any(row.stated for row in of_video) for of_video in rows]
    owned = [
        _by_identity(of_video) if has else []
        for of_video, has in zip(rows, stated, strict=True)
    ]
    categories, left_out = _used(read_categories(file, content), content, rows)
    names = {category.category_id: category.name for category in categories}

    def tracks(index: int) -> list[ForeignTrack]:
        video = videos[index]
        return [_track(frames, video, names) for frames in owned[index]]

    def labels(index: int) -> list[ForeignLabel]:
        found = [] if stated[index] else rows[index]
        read = (_label(row, videos[index], names) for row in found)
        return [label for label in read if label is not None]

    return Foreign(
        tuple(videos),
        tracks,
        categories,
        lambda: left_out,
        labels,
        identity=f"{' or '.join(_IDENTITY)}, also in attributes",
    )


def _videos(
    source: SourceFolder,
    groups: dict[str, list[dict]],
    folder: Path,
    fail: Fail,
) -> tuple[list[ForeignVideo], dict[object, tuple[int, int]]]:
    """Returns the videos, and (video, frame) of each image.

    Raises:
      DataError: the frames of a video have several sizes.
    """
    videos: list[ForeignVideo] = []
    places: dict[object, tuple[int, int]] = {}
    for index, (name, entries) in enumerate(groups.items()):
        size = entries[0]["height"], entries[0]["width"]
        for frame, entry in enumerate(entries):
            if (entry["height"], entry["width"]) != size:
                expected = f"(height, width) = {size}, as the first frame"
                got = entry["height"], entry["width"]
                place = f"image {entry['id']}"
                raise fail(video=name, field=place, expected=expected, got=got)
            places[entry["id"]] = index, frame
        files = tuple(source.inside(folder / entry["file_name"]) for entry in entries)
        videos.append(ForeignVideo(name, files, size))
    return videos, places


def _rows(
    content: dict,
    videos: list[ForeignVideo],
    places: dict[object, tuple[int, int]],
    fail: Fail,
) -> list[list[_Row]]:
    """Returns the annotations of each video, without objects outside the frame.

    Raises:
      DataError: an annotation refers to no image.
    """
    rows: list[list[_Row]] = [[] for _ in videos]
    for k, entry in enumerate(objects(content, "annotations", fail)):
        here = partial(fail, annotation=entry.get("id", f"[{k}]"))
        where = places.get(hashable(entry.get("image_id")))
        if where is None:
            expected, got = "the id of an image", entry.get("image_id", "nothing")
            raise here(field="image_id", expected=expected, got=got)
        index, frame = where
        here = partial(here, video=videos[index].name)
        if _is_outside(entry, here):
            continue
        crowd, stated = _is_crowd(entry, here), _identities(entry, here)
        rows[index].append(_Row(entry, frame, crowd, stated, here))
    return rows


def _is_crowd(entry: dict, fail: Fail) -> bool:
    """Whether an annotation is a crowd, or a region to ignore, which is used alike."""
    values = {key: entry.get(key) for key in ("iscrowd", "ignore")}
    for field, value in values.items():
        if value not in (0, 1, None):
            raise fail(field=field, expected="0 or 1", got=value)
    return any(values.values())


def _used(
    categories: tuple[Category, ...], content: dict, rows: list[list[_Row]]
) -> tuple[tuple[Category, ...], tuple[str, ...]]:
    """Drops the category that Roboflow adds for the project.

    It is the supercategory of the others and has no annotations.
    """
    listed = content["categories"]
    above = {hashable(entry.get("supercategory")) for entry in listed}
    own = {entry["id"]: entry.get("supercategory") for entry in listed}
    used = {hashable(row.entry.get("category_id")) for some in rows for row in some}
    project = [
        c
        for c in categories
        if own[c.category_id] == "none"
        and c.name in above
        and c.category_id not in used
    ]
    kept = tuple(c for c in categories if c not in project)
    return kept, tuple(f"category {c.name!r}, which names the project" for c in project)


def _identities(entry: dict, fail: Fail) -> dict[str, str]:
    """Returns the identities of an annotation by field; 7 and "7" are equal."""
    attributes = entry.get("attributes")
    inner = attributes if isinstance(attributes, dict) else {}
    values = [each.get(key) for each in (entry, inner) for key in _IDENTITY]
    stated: dict[str, str] = {}
    for field, value in zip(_IDENTITIES, values, strict=True):
        if value is None:  # null, as where it is missing
            continue
        if type(value) not in (int, str) or value == "":
            raise fail(field=field, expected="a whole number or a name", got=value)
        stated[field] = plain_identity(value)
    return stated


def _is_outside(entry: dict, fail: Fail) -> bool:
    """Returns whether CVAT's attributes mark the object as outside this frame.

    Raises:
      DataError: the attributes rotate the shape.
    """
    attributes = entry.get("attributes")
    inner = attributes if isinstance(attributes, dict) else {}
    for field, turn in (
        ("rotation", entry.get("rotation")),
        ("attributes.rotation", inner.get("rotation")),
    ):
        if turn not in (0, None):
            expected = "0, as the direction of the rotation is unknown"
            raise fail(field=field, expected=expected, got=turn)
    outside = inner.get("outside", False)
    if outside not in (True, False, None):
        raise fail(field="attributes.outside", expected="true or false", got=outside)
    return bool(outside)


def _by_identity(rows: list[_Row]) -> list[dict[int, _Row]]:
    """Groups annotations by object, each keyed by frame.

    Raises:
      DataError: some have no identity, or two fields contradict each other.
    """
    for row in rows:
        if not row.stated:
            expected = "the identity of the object, over all frames, also in attributes"
            raise row.fail(
                field=" or ".join(_IDENTITY), expected=expected, got="nothing"
            )
    whole = [field for field in _IDENTITIES if all(field in r.stated for r in rows)]
    if not whole:
        field = next(iter(rows[0].stated))
        row = next(row for row in rows if field not in row.stated)
        expected = "this field, as in the first annotation of the video"
        got = f"{' and '.join(row.stated)} only"
        raise row.fail(field=field, expected=expected, got=got)
    for other in _IDENTITIES:
        _check_agreement(rows, whole[0], other)
        _check_agreement(rows, other, whole[0])
    tracks: dict[str, dict[int, _Row]] = {}
    for row in rows:
        track = tracks.setdefault(row.stated[whole[0]], {})
        if row.frame in track:
            expected = "one annotation in a frame for an identity"
            raise row.fail(field="image_id", expected=expected, got="another")
        track[row.frame] = row
    return list(tracks.values())


def _check_agreement(rows: list[_Row], field: str, other: str) -> None:
    """Checks that annotations equal in `field` are equal in `other`."""
    partners: dict[str, str] = {}
    for row in rows:
        if field in row.stated and other in row.stated:
            value, partner = row.stated[field], row.stated[other]
            known = partners.setdefault(value, partner)
            if known != partner:
                expected = f"one {other} for {field} {value}"
                got = f"{known} and {partner}"
                raise row.fail(field=f"{field} and {other}", expected=expected, got=got)


def _track(
    frames: dict[int, _Row], video: ForeignVideo, names: dict[int, str]
) -> ForeignTrack:
    """Makes a track from the annotations of one identity."""
    masks: list[dict | None] = [None] * len(video.files)
    begin = frames[min(frames)]
    first: Any = begin.entry.get("category_id")
    for frame, row in frames.items():
        category = _category(row, names)
        if category != first:
            expected = f"{first}, as in the first frame of this identity"
            raise row.fail(field="category_id", expected=expected, got=category)
        if row.crowd != begin.crowd:
            expected = f"{int(begin.crowd)}, as in the first frame of this identity"
            raise row.fail(
                field="iscrowd or ignore", expected=expected, got=int(row.crowd)
            )
        masks[frame] = _mask(row, video)
    return ForeignTrack(names[first], begin.crowd, masks)


def _label(
    row: _Row, video: ForeignVideo, names: dict[int, str]
) -> ForeignLabel | None:
    """Makes a label from an annotation without identity; None if it is empty."""
    name, mask = names[_category(row, names)], _mask(row, video)
    return None if mask is None else ForeignLabel(name, row.crowd, row.frame, mask)


def _category(row: _Row, names: dict[int, str]) -> Any:
    category = row.entry.get("category_id", "nothing")
    if hashable(category) not in names:
        expected = "the id of a category"
        raise row.fail(field="category_id", expected=expected, got=category)
    return category


def _mask(row: _Row, video: ForeignVideo) -> dict | None:
    segmentation = row.entry.get("segmentation")
    if not segmentation:  # null or []
        got = "a box only" if row.entry.get("bbox") else "nothing"
        expected = "polygons or run lengths"
        raise row.fail(field="segmentation", expected=expected, got=got)
    return convert(segmentation, video.size, row.fail)
