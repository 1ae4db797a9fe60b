"""Groups the images of a COCO file to videos, in the order of their frames."""

from functools import partial
from pathlib import Path, PurePosixPath

from data_pipeline.convert.frame_names import read_name
from data_pipeline.errors import Fail
from data_pipeline.file_names import natural_order

_VIDEO = ("video_id", "video_name", "video")  # of an image; else its folder
# Of an image; else the order of the names.
_FRAME = ("frame_id", "frame_index", "frame_number", "frame_num")


def group_images(
    images: dict[int, dict], content: dict, fail: Fail
) -> dict[str, list[dict]]:
    """Groups images by video name, in order.

    Args:
      images: entries of the file by id.
      content: of the file, whose `videos`, if any, name the videos.
      fail: makes the error from `field`, `expected` and `got`.

    Raises:
      DataError: videos or frames are ambiguous.
    """
    titles = _titles(content, fail)
    groups: dict[str, list[dict]] = {}
    for entry in images.values():
        path = PurePosixPath(entry["file_name"])
        key = next((key for key in _VIDEO if key in entry), "")
        given = entry.get(key)
        if key == "video_id" and titles and hashable(given) not in titles:
            place, expected = f"image {entry['id']}, video_id", "the id of a video"
            raise fail(field=place, expected=expected, got=given)
        name = titles.get(hashable(given), given)
        if name is None and not path.parent.name:
            name = read_name(_uploaded_name(entry)).video
        name = path.parent.as_posix() if name is None else str(name)
        groups.setdefault(name, []).append(entry)
    for name, entries in groups.items():
        _check_versions(entries, partial(fail, video=name))
    return {
        name: _in_order(groups[name], partial(fail, video=name))
        for name in sorted(groups, key=_by_name)
    }


def _titles(content: dict, fail: Fail) -> dict[object, str]:
    """Returns the names of the listed videos by id; an id stands for a missing name.

    Raises:
      DataError: an id or a name is used twice.
    """
    listed = content.get("videos")
    titles: dict[object, str] = {}
    names: set[str] = set()
    for k, entry in enumerate(listed if isinstance(listed, list) else []):
        number = hashable(entry.get("id")) if isinstance(entry, dict) else None
        if number is None:  # no image can refer to it
            continue
        name = entry.get("name")
        name = name if isinstance(name, str) and name else str(number)
        if number in titles or name in names:
            expected = "each id and name once"
            raise fail(field=f"videos[{k}]", expected=expected, got=(number, name))
        titles[number] = name
        names.add(name)
    return titles


def _uploaded_name(entry: dict) -> str:
    """Returns the name of an image before Roboflow renamed it, as in newer exports."""
    extra = entry.get("extra")
    name = extra.get("name") if isinstance(extra, dict) else None
    return name if isinstance(name, str) and name else entry["file_name"]


def _check_versions(entries: list[dict], fail: Fail) -> None:
    """Raises DataError if Roboflow has augmented a frame into several images."""
    seen: dict[str, int] = {}
    for entry in entries:
        if ".rf." not in entry["file_name"]:
            continue
        stem = read_name(_uploaded_name(entry)).stem
        first = seen.setdefault(stem, entry["id"])
        if first != entry["id"]:
            expected = (
                "one image of each frame, as Roboflow exports without augmentation"
            )
            got = f"two of {stem}, the other is image {first}"
            raise fail(field=f"image {entry['id']}", expected=expected, got=got)


def _by_name(name: str) -> tuple:
    return natural_order(Path(name))


def _in_order(entries: list[dict], fail: Fail) -> list[dict]:
    """Sorts the images of a video by frame number, or else by file name."""
    orders = {
        key: _by_number(entries, key, fail)
        for key in _FRAME
        if any(entry.get(key) is not None for entry in entries)
    }
    if not orders:
        return sorted(entries, key=lambda entry: _by_name(_uploaded_name(entry)))
    first, *others = orders.values()
    for other in others:
        for one, two in zip(first, other, strict=True):
            if one is not two:
                expected, got = "the same order", f"images {one['id']} and {two['id']}"
                raise fail(field=" and ".join(orders), expected=expected, got=got)
    return first


def _by_number(entries: list[dict], key: str, fail: Fail) -> list[dict]:
    numbered: dict[int, dict] = {}
    for entry in entries:
        here = partial(fail, field=f"image {entry['id']}, {key}")
        value = entry.get(key)
        if value is None:
            expected = "the number of the frame, as other images of the video have"
            raise here(expected=expected, got="nothing")
        number = _frame_number(value)
        if number is None:
            raise here(expected="a whole number", got=value)
        if number in numbered:
            expected = "a number used once in the video"
            got = f"{number}, as image {numbered[number]['id']} has"
            raise here(expected=expected, got=got)
        numbered[number] = entry
    return [numbered[number] for number in sorted(numbered)]


def _frame_number(value: object) -> int | None:
    """Returns an integer, possibly given as text; otherwise None."""
    if isinstance(value, str) and len(value) <= 18:
        return int(value) if value.isascii() and value.isdecimal() else None
    return value if type(value) is int else None


def hashable(value: object) -> object:
    """Returns an id, or None if the value cannot be one."""
    return value if type(value) in (int, str) else None
