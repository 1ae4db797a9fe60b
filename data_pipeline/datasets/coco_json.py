"""Reads COCO files: images, categories, lists of objects."""

from functools import partial
from pathlib import Path

from data_pipeline.datasets.dataset import Category
from data_pipeline.datasets.ytvis_json import stays_inside
from data_pipeline.errors import DataError, Fail, is_name
from data_pipeline.images import MAX_SIDE
from vis_jax.formats.rle import MAX_PIXELS


def read_categories(file: Path, content: dict) -> tuple[Category, ...]:
    """Reads the categories, by id.

    Raises:
      DataError: an id or name is missing or duplicated.
    """
    fail = partial(DataError, file)
    found = []
    for k, entry in enumerate(objects(content, "categories", fail)):
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not is_name(name):
            expected = "an id, and a name on one line"
            raise fail(field=f"categories[{k}]", expected=expected, got=entry)
        found.append(Category(number, name))
    for values in zip(*found, strict=True):
        twice = next((v for k, v in enumerate(values) if v in values[:k]), None)
        if twice is not None:
            expected = "each id and name once"
            raise fail(field="categories", expected=expected, got=twice)
    return tuple(sorted(found))


def objects(content: dict, key: str, fail: Fail) -> list[dict]:
    """Returns a list of JSON objects from the file.

    Raises:
      DataError: not a list, or an item is not an object.
    """
    entries = content.get(key, "nothing")
    if not isinstance(entries, list):
        raise fail(field=key, expected="a list", got=entries)
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise fail(field=f"{key}[{k}]", expected="an object", got=entry)
    return entries


def read_images(file: Path, content: dict) -> dict[int, dict]:
    """Reads the images by id, and checks the fields that are used.

    Raises:
      DataError: an id, size or file name is invalid.
    """
    fail = partial(DataError, file)
    images: dict[int, dict] = {}
    for k, entry in enumerate(objects(content, "images", fail)):
        name = entry.get("file_name")
        if isinstance(name, str):  # converts Windows separators
            entry = {**entry, "file_name": name.replace("\\", "/")}
        _check_image(entry, k, fail)
        if entry["id"] in images:
            expected = "an id used once"
            raise fail(field=f"images[{k}].id", expected=expected, got=entry["id"])
        images[entry["id"]] = entry
    return images


def _check_image(entry: dict, k: int, fail: Fail) -> None:
    name = entry.get("file_name", "nothing")
    if not isinstance(name, str) or not stays_inside(name):
        expected = "a path inside the image folder"
        raise fail(field=f"images[{k}].file_name", expected=expected, got=name)
    for key in ("height", "width"):
        value = entry.get(key, "nothing")
        if type(value) is not int or not 1 <= value <= MAX_SIDE:
            expected = f"1 to {MAX_SIDE} pixels"
            raise fail(field=f"images[{k}].{key}", expected=expected, got=value)
    pixels = entry["height"] * entry["width"]
    if pixels > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS} pixels"
        raise fail(field=f"images[{k}]", expected=expected, got=pixels)
    if type(entry.get("id")) is not int:
        got = entry.get("id", "nothing")
        raise fail(field=f"images[{k}].id", expected="a whole number", got=got)
