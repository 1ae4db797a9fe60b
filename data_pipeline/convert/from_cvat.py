"""Converts CVAT for video 1.1: one XML file of tracks per video."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignTrack,
    ForeignVideo,
    convert,
    encode,
    union,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    check_size,
    frame_number,
    image_size,
)
from data_pipeline.errors import DataError, Fail, is_name
from data_pipeline.file_names import IMAGE_SUFFIXES

LOOKED_FOR = "annotations.xml (CVAT for video 1.1) beside images/, also in folders"
_MAX_XML = 2**31  # bytes; it is read element by element
_MAX_NUMBERS = 2**24  # characters of a list of numbers
_SHAPES = ("polygon", "box", "mask")


class _Truth(NamedTuple):
    """One XML file and its images."""

    file: Path
    places: dict[int, int]  # frame number to position


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises annotations.xml in the folder or its subfolders."""
    for place in source.candidates("{split}", ""):
        if place.is_dir():
            folders = [place, *source.folders(place)]
            found = [f for f in folders if (f / "annotations.xml").is_file()]
            if found:
                why = f"{show(source, found[0] / 'annotations.xml')} is there"
                return DetectedLayout("cvat", why, partial(_read, source, found))
    return None


def _read(source: SourceFolder, folders: list[Path]) -> Foreign:
    videos, truths = [], []
    for folder in folders:
        file = folder / "annotations.xml"
        check_size(source.inside(file), _MAX_XML)
        files = source.files(folder / "images", *IMAGE_SUFFIXES)
        files = files or source.files(folder, *IMAGE_SUFFIXES)
        if not files:
            raise DataError(file, expected="images in images/ beside it", got="none")
        inside = folder != source.root
        name = show(source, folder) if inside else source.root.resolve().name
        places = {frame_number(image): k for k, image in enumerate(files)}
        if len(places) < len(files):
            expected = "images with a number each"
            raise DataError(files[0].parent, expected=expected, got="one used twice")
        videos.append(ForeignVideo(name, tuple(files), image_size(files[0])))
        truths.append(_Truth(file, places))
    return Foreign(
        tuple(videos), lambda index: _tracks(truths[index], videos[index]), None
    )


def _tracks(truth: _Truth, video: ForeignVideo) -> list[ForeignTrack]:
    """Reads the objects of an XML file, freeing elements as it goes."""
    tracks: list[tuple[int, ForeignTrack]] = []
    tasks: set[str | None] = set()
    fail = partial(DataError, truth.file, video=video.name)
    depth = 0
    for event, element in _events(truth.file, fail):
        depth += 1 if event == "start" else -1
        if event == "start" and depth == 1 and element.tag != "annotations":
            expected = "annotations, as CVAT writes it"
            raise fail(field="root", expected=expected, got=element.tag)
        if event == "end" and depth == 1:
            if element.tag == "image":
                expected = "tracks: export as 'CVAT for video 1.1'"
                raise fail(expected=expected, got="CVAT for images")
            if element.tag == "meta":
                _check_meta(element, truth, video, fail)
            if element.tag == "track":
                tasks.add(element.get("task_id"))
                if len(tasks) > 1:
                    expected = "tracks of one task: export each task alone"
                    raise fail(
                        field="task_id", expected=expected, got=f"{len(tasks)} tasks"
                    )
                group = _group(element, fail)
                tracks.append((group, _track(element, truth, video, fail)))
            element.clear()
    return _join_groups(tracks, fail)


def _events(file: Path, fail: Fail) -> Iterator[tuple[str, Element]]:
    """Parses a file; rejects entities, which can expand without bound, and DTDs."""
    try:
        with open(file, "rb") as data:
            yield from iterparse(data, ("start", "end"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise fail(expected="XML without a DTD", got=_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, DefusedXmlException):
        return f"{type(error).__name__}, a document type or entities"
    return str(error)  # damaged, or in an encoding that the parser does not know


def _check_meta(meta: Element, truth: _Truth, video: ForeignVideo, fail: Fail) -> None:
    """Checks frame numbers and size against the images."""
    sides = (f"original_size/{side}" for side in ("height", "width"))
    height, width = (_stated(meta, side, fail) for side in sides)
    if height is not None and width is not None and (height, width) != video.size:
        expected = f"the (height, width) of the images, {video.size}"
        raise fail(field="original_size", expected=expected, got=(height, width))
    found = sorted(truth.places)
    numbers = _frames(meta, found, fail)
    # Images may be missing, but not the first, or their numbering would be ambiguous.
    if found[0] != numbers[0] or not all(number in numbers for number in found):
        expected = f"images numbered {numbers[0]} to {numbers[-1]}"
        expected += f" in steps of {numbers.step}" if numbers.step > 1 else ""
        expected += ", as size, start_frame, stop_frame and frame_filter say"
        got = f"{len(found)} images, {found[0]} to {found[-1]}"
        raise fail(field="meta", expected=expected, got=got)


def _frames(meta: Element, found: list[int], fail: Fail) -> range:
    """Returns the frame numbers of the header, completed from the images.

    There is at least one.
    """
    names = ("size", "start_frame", "stop_frame")
    count, first, stop = (_stated(meta, name, fail) for name in names)
    step = _step(meta, fail)
    if first is None:  # CVAT counts from 0
        first = found[0] if count is None and stop is None else 0
    if count == 0:
        raise fail(field="size", expected="at least 1", got=count)
    if stop is not None and stop < first:
        expected = f"at least start_frame, {first}"
        raise fail(field="stop_frame", expected=expected, got=stop)
    if count is None:
        last = max(found[-1], first) if stop is None else stop
        return range(first, last + 1, step)
    numbers = range(first, first + count * step, step)
    if stop is not None and range(first, stop + 1, step) != numbers:
        given = f"size {count}, start_frame {first} and steps of {step}"
        expected = f"{numbers[-1]}, as {given} say"
        raise fail(field="stop_frame", expected=expected, got=stop)
    return numbers


def _step(meta: Element, fail: Fail) -> int:
    rule = (meta.findtext(".//frame_filter") or "").strip()
    step = re.fullmatch(r"step\s*=\s*([1-9][0-9]{0,5})", rule)
    if rule and not step:
        raise fail(field="frame_filter", expected="step=N, or nothing", got=rule)
    return int(step[1]) if step else 1


def _stated(meta: Element, name: str, fail: Fail) -> int | None:
    """Reads an integer of the header; None if missing."""
    text = (meta.findtext(f".//{name}") or "").strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise fail(field=name, expected="a whole number", got=text)
    return int(text) if text else None


def _group(track: Element, fail: Fail) -> int:
    """Returns the group of a track; 0 means no group."""
    here = partial(fail, annotation=track.get("id", "without id"))
    return 0 if track.get("group_id") is None else _whole(track, "group_id", here)


def _join_groups(
    tracks: list[tuple[int, ForeignTrack]], fail: Fail
) -> list[ForeignTrack]:
    """Merges tracks of the same group into one object."""
    joined: dict[tuple[int, int], ForeignTrack] = {}
    for k, (group, track) in enumerate(tracks):
        key = (group, 0) if group else (0, k)
        other = joined.setdefault(key, track)
        if other is track:
            continue
        if other.category != track.category:
            expected = f"one label for group {group}"
            got = f"{other.category!r} and {track.category!r}"
            raise fail(field="group_id", expected=expected, got=got)
        for frame, mask in enumerate(track.masks):
            parts = [m for m in (other.masks[frame], mask) if m is not None]
            other.masks[frame] = union(parts) if parts else None
    return list(joined.values())


def _track(
    element: Element, truth: _Truth, video: ForeignVideo, fail: Fail
) -> ForeignTrack:
    fail = partial(fail, annotation=element.get("id", "without id"))
    label = element.get("label", "")
    if not is_name(label):
        raise fail(field="label", expected="a name on one line", got=label or "nothing")
    masks: list[dict | None] = [None] * len(video.files)
    seen: set[int] = set()
    shapes = [child for child in element if child.tag != "attribute"]
    for shape in shapes:
        if shape.tag not in _SHAPES:
            expected = f"one of {', '.join(_SHAPES)}"
            raise fail(field="shape", expected=expected, got=shape.tag)
        number = _whole(shape, "frame", fail)
        outside = shape.get("outside", "0")
        if outside not in ("0", "1"):
            place = f"frame {number}, outside"
            raise fail(field=place, expected="0 or 1", got=outside)
        if outside == "1":  # the track ends, or pauses
            continue
        if number not in truth.places:
            low, high = min(truth.places), max(truth.places)
            expected = f"the number of an image, {low} to {high}"
            raise fail(field="frame", expected=expected, got=number)
        here = partial(_at, fail, number)
        if number in seen:
            raise here(field="shape", expected="one in a frame", got="another")
        seen.add(number)
        masks[truth.places[number]] = _mask(shape, video.size, here)
    _check_gaps(shapes, truth, fail)
    return ForeignTrack(label, False, masks)


def _frame(shape: Element) -> int:
    """Returns the frame of a shape, which `_track` has checked."""
    return int(shape.attrib["frame"])


def _check_gaps(shapes: list[Element], truth: _Truth, fail: Fail) -> None:
    """Checks that no frame is left out between two keyframes of a visible object.

    There CVAT interpolates, and its exports have a shape for each of these frames.
    """
    for shape, after in pairwise(sorted(shapes, key=_frame)):
        if shape.get("outside") == "1" or after.get("outside") == "1":
            continue
        if not shape.get("keyframe") == after.get("keyframe") == "1":
            continue
        first, last = _frame(shape), _frame(after)
        if truth.places[last] - truth.places[first] > 1:
            expected = f'a shape in each frame from {first} to {last}, or outside="1"'
            raise fail(field="keyframe", expected=expected, got="none in between")


def _at(fail: Fail, frame: int, *, field: str, expected: str, got: object) -> DataError:
    return fail(field=f"frame {frame}, {field}", expected=expected, got=got)


def _mask(shape: Element, size: tuple[int, int], fail: Fail) -> dict | None:
    turn = _number(shape.get("rotation", "0"), "rotation", fail)
    if shape.tag != "box" and turn % 360:
        raise fail(field="rotation", expected="0, unless of a box", got=turn)
    if shape.tag == "polygon":
        text = shape.get("points", "")
        return convert([_numbers(text.replace(";", ","), "points", fail)], size, fail)
    if shape.tag == "box":
        names = ("xtl", "ytl", "xbr", "ybr")
        x1, y1, x2, y2 = (_number(shape.get(n, ""), n, fail) for n in names)
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        return convert([_turned(corners, turn).ravel().tolist()], size, fail)
    return _drawn(shape, size, fail)


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates points [N, 2] x y clockwise about their mean; y points down."""
    if not degrees % 360:
        return points
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    centre = points.mean(0)
    return (points - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre


def _drawn(shape: Element, size: tuple[int, int], fail: Fail) -> dict | None:
    """Decodes row-major run lengths within a box, background first."""
    names = ("left", "top", "width", "height")
    left, top, width, height = (_whole(shape, name, fail) for name in names)
    if left + width > size[1] or top + height > size[0]:
        expected = f"a box in the frame of height, width {size}"
        got = (left, top, width, height)
        raise fail(field=", ".join(names), expected=expected, got=got)
    runs = _numbers(shape.get("rle", ""), "rle", fail)
    counts = [int(run) for run in runs]
    if min(counts) < 0 or counts != runs or sum(counts) != width * height:
        expected = f"run lengths that add up to width x height = {width * height}"
        raise fail(field="rle", expected=expected, got=sum(runs))
    values = np.arange(len(counts)) % 2 == 1
    whole = np.zeros(size, bool)
    box = np.repeat(values, counts).reshape(height, width)
    whole[top : top + height, left : left + width] = box
    return encode(whole)


def _number(text: str, name: str, fail: Fail) -> float:
    first, *others = _numbers(text, name, fail)
    if others:
        raise fail(field=name, expected="one number", got=text)
    return first


def _numbers(text: str, name: str, fail: Fail) -> list[float]:
    if len(text) > _MAX_NUMBERS:
        expected = f"at most {_MAX_NUMBERS} characters"
        raise fail(field=name, expected=expected, got=len(text))
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        raise fail(field=name, expected="numbers", got=text) from None
    if not np.isfinite(numbers).all():
        raise fail(field=name, expected="finite numbers", got=text)
    return numbers


def _whole(shape: Element, name: str, fail: Fail) -> int:
    text = shape.get(name, "nothing")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise fail(field=name, expected="a whole number", got=text)
    return int(text)
