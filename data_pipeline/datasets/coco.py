"""COCO images with instance masks, as videos of one frame."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.datasets.coco_json import objects, read_categories, read_images
from data_pipeline.datasets.dataset import Category, Video
from data_pipeline.datasets.tracked import TrackedVideos
from data_pipeline.datasets.ytvis import read_frame
from data_pipeline.datasets.ytvis_json import AnnotatedTrack, read_json
from data_pipeline.datasets.ytvis_masks import MaskTable
from data_pipeline.errors import DataError, Fail, stop
from data_pipeline.images import check_inside
from vis_jax.formats.rle import Runs

_ANNOTATIONS = "annotations/instances_{split}.json"
_IMAGES = ("{split}", "images/{split}", "images")


class CocoImages(TrackedVideos):
    """Images of a folder in COCO format.

    Lin et al., "Microsoft COCO", ECCV 2014. Annotations are in
    `annotations/instances_<split>.json`, images in `<split>/` or `images/`.

    Args:
      root: folder of the data set.
      split: for example "train2017".
      categories: categories of a video data set to map annotations to; others are
        dropped, and so are images left without objects. None keeps the file's
        categories.
      names: pairs (COCO category, name in `categories`); "" drops it. Others are
        matched by name, ignoring case and treating "_" as " ".

    Raises:
      DataError: a defect of the files, with its location; no common category.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        categories: tuple[Category, ...] | None = None,
        names: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.root = Path(root)
        self.annotations_file, self.images = _find(self.root, split)
        content = read_json(self.annotations_file)
        found = read_categories(self.annotations_file, content)
        self.categories = found if categories is None else categories
        labels = match_categories(found, self.categories, names)
        if not any(label is not None for label in labels.values()):
            expected = f"a category among {[c.name for c in self.categories]}"
            got = [category.name for category in found]
            raise DataError(self.annotations_file, expected=expected, got=got)
        videos, tracks, runs, dropped = _read(
            self.annotations_file, content, labels, drop_empty=categories is not None
        )
        self.videos: tuple[Video, ...] = tuple(videos)
        self.tracks: tuple[tuple[AnnotatedTrack, ...], ...] = tuple(tracks)
        self.runs = runs
        titles = {category.category_id: category.name for category in found}
        # Annotations dropped because of their category, by its name.
        self.left_out = {titles[k]: number for k, number in dropped.most_common()}
        self.images_left_out = len(content["images"]) - len(self.videos)

    def path(self, index: int, frame: int) -> Path:
        """Returns the file of an image; `frame` is 0."""
        return self.images / self.videos[index].file_names[frame]

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Reads the image, repeated for each of `frame_ids`: RGB uint8 [T, H, W, 3].

        Raises:
          DataError: the file is missing, truncated, not an image, or of another size.
        """
        frame = read_frame(self.path(index, 0), self.videos[index], root=self.root)
        return np.repeat(frame[None], len(frame_ids), axis=0)


def match_categories(
    found: Sequence[Category],
    wanted: Sequence[Category],
    names: Sequence[tuple[str, str]],
) -> dict[int, int | None]:
    """Maps each category id to a label among `wanted`, or None.

    Args:
      found: categories of the images.
      wanted: categories of the videos.
      names: pairs of a name in `found` and one in `wanted`, or "" for none. Pairs with
        unknown names are ignored.
    """
    places = {plain_name(category.name): k for k, category in enumerate(wanted)}
    labels: dict[int, int | None] = {}
    for category in found:
        pairs = [
            other
            for name, other in names
            if plain_name(name) == plain_name(category.name)
        ]
        options = [places.get(plain_name(other)) for other in pairs if other]
        if "" not in pairs:
            options.append(places.get(plain_name(category.name)))
        known = [label for label in options if label is not None]
        labels[category.category_id] = known[0] if known else None
    return labels


def plain_name(name: str) -> str:
    """Normalises a category name for matching."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _find(root: Path, split: str) -> tuple[Path, Path]:
    if not split or Path(split).name != split or split == "..":
        raise DataError(root, field="split", expected="the name of a folder", got=split)
    file = root / _ANNOTATIONS.format(split=split)
    if not file.is_file():
        name = file.relative_to(root)
        raise DataError(root, expected=f"the file {name}", got="no such file")
    folders = [root / name.format(split=split) for name in _IMAGES]
    for folder in folders:
        if folder.is_dir():
            check_inside(file, root)
            check_inside(folder, root)
            return file, folder
    shown = " or ".join(f"{folder.relative_to(root)}/" for folder in folders)
    raise DataError(root, expected=f"images in {shown}", got="no such folder")


def _read(
    file: Path, content: dict, labels: dict, *, drop_empty: bool
) -> tuple[list[Video], list[tuple[AnnotatedTrack, ...]], Runs, Counter[int]]:
    """Reads one-frame videos, their tracks, all masks, and what was dropped."""
    fail = partial(DataError, file)
    owned: dict[int, list[tuple[int, dict]]] = {}
    images = read_images(file, content)
    dropped: Counter[int] = Counter()
    for k, entry in enumerate(objects(content, "annotations", fail)):
        for key, known in (("image_id", images), ("category_id", labels)):
            if type(entry.get(key)) is not int or entry[key] not in known:
                got = entry.get(key, "nothing")
                title = entry.get("id", f"[{k}]")
                expected = "an id that is listed"
                raise fail(annotation=title, field=key, expected=expected, got=got)
        if labels[entry["category_id"]] is None:
            dropped[entry["category_id"]] += 1
        else:
            owned.setdefault(entry["image_id"], []).append((k, entry))
    masks = MaskTable()
    videos, tracks = [], []
    for number, entry in images.items():
        here = _tracks(owned.pop(number, []), entry, labels, masks, fail)
        if here or not drop_empty:
            name = entry["file_name"]
            size = entry["height"], entry["width"]
            videos.append(Video(number, name, *size, 1, (name,)))
            tracks.append(here)
    if not videos:
        raise fail(expected="images with objects of these categories", got="none")
    return videos, tracks, masks.runs(), dropped


def _segmentation(entry: dict, place: int, fail: Fail) -> object:
    """Returns the mask of an object, which is required."""
    if entry.get("segmentation"):
        return entry["segmentation"]
    got = "a box only" if entry.get("bbox") else "nothing"  # null or []
    title, expected = entry.get("id", f"[{place}]"), "polygons or run lengths"
    raise fail(annotation=title, field="segmentation", expected=expected, got=got)


def _tracks(
    entries: list[tuple[int, dict]],
    image: dict,
    labels: dict,
    masks: MaskTable,
    fail: Fail,
) -> tuple[AnnotatedTrack, ...]:
    """Returns the non-empty objects of an image."""

    def fail_at(*, field: str, expected: str, got: object) -> DataError:
        number, _, rest = field.removeprefix("segmentations[").partition("]")
        k, entry = entries[int(number)]
        title = entry.get("id", f"[{k}]")
        field = "segmentation" + rest
        return fail(annotation=title, field=field, expected=expected, got=got)

    size = dict(height=image["height"], width=image["width"])
    segmentations = [_segmentation(entry, place, fail) for place, entry in entries]
    index = masks.add(segmentations, **size, fail=fail_at, report=stop)
    unknown = np.full(1, np.nan, np.float32)
    return tuple(
        AnnotatedTrack(
            labels[entry["category_id"]],
            entry.get("iscrowd", 0) == 1,
            index[k : k + 1],
            unknown,
            place,
        )
        for k, (place, entry) in enumerate(entries)
        if index[k] >= 0
    )
