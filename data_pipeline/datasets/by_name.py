"""Creates data sets by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from data_pipeline.augment.pseudo_clip import ViewLimits
from data_pipeline.datasets.coco import CocoImages
from data_pipeline.datasets.dataset import Dataset
from data_pipeline.datasets.held_out import PARTS
from data_pipeline.datasets.joint import JointClips
from data_pipeline.datasets.joint_videos import (
    HasLabels,
    JointVideos,
    join_categories,
    relabel,
)
from data_pipeline.datasets.remote_root import local_root, on_disk
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.datasets.ytvis_json import AnnotatedTrack
from data_pipeline.datasets.ytvis_layout import is_tfds
from data_pipeline.errors import DataError
from data_pipeline.moving_shapes.dataset import SPLITS, MovingShapes
from data_pipeline.settings import Settings
from vis_jax.settings import to_dict


@runtime_checkable
class VideosInMemory(Dataset, HasLabels, Protocol):
    """Videos with annotations in memory, from a folder or records."""


def make_dataset(config: Settings, part_or_split: str = "train") -> Dataset:
    """Makes the data set that a config names.

    Args:
      config: the section `data`. The output of `write.tfds_builder` is read if `root`
        has it.
      part_or_split: "train" is `config.split` without the held-out videos, "held_out"
        those videos, "all" both; any other value names a whole split. For moving
        shapes "train" and "all" are `config.split`, "held_out" is "val". Of two joint
        sets (`config.joint`) `joint.evaluate` selects one, with all categories.

    Raises:
      ValueError: settings are inconsistent.
      DataError: a defect of the files.
    """
    if config.joint.root:
        first, second, _ = _both(config, part_or_split, config.joint.evaluate)
        return first if config.joint.evaluate == "first" else second
    return DATASETS[config.name](config, part_or_split)


def make_training_set(config: Settings) -> Dataset:
    """Makes the training part of the data set, with the images of `config.stills`.

    Args:
      config: as in `make_dataset`. `stills.share` is the fraction of clips that are
        pseudo-clips of images; with COCO as `name`, all are. With `joint.root` the
        videos of two sets are joined.

    Raises:
      ValueError: settings are inconsistent.
      DataError: a defect of the files, or no object to train on.
    """
    if config.joint.root:
        first, second, added = _both(config, "train", "both")
        _check_annotated(first, config.root)
        _check_annotated(second, config.joint.root)
        return JointVideos(first, second, added=added)
    dataset = make_dataset(config, "train")
    _check_annotated(dataset, config.root)
    stills = config.stills
    motion = ViewLimits(stills.zoom, stills.angle)
    if isinstance(dataset, CocoImages):
        return JointClips(None, dataset, share=1.0, motion=motion)
    if stills.share == 0:
        return dataset
    images = CocoImages(
        on_disk(stills.root, "data.stills.root"),
        stills.split,
        categories=dataset.categories,
        names=stills.names,
    )
    return JointClips(dataset, images, share=stills.share, motion=motion)


def _check_annotated(dataset: Dataset, root: str) -> None:
    """Raises DataError if no object of the files can be trained on."""
    videos: Sequence[Sequence[AnnotatedTrack]] | None = getattr(dataset, "tracks", None)
    if videos is None:  # synthetic
        return
    shown = (
        not track.crowd and (track.mask_index >= 0).any()
        for tracks in videos
        for track in tracks
    )
    if not any(shown):
        place = getattr(dataset, "annotations_file", root)
        expected = "annotated objects in the videos to train on"
        raise DataError(place, field="annotations", expected=expected, got="none")


def _both(
    config: Settings, part_or_split: str, wanted: str
) -> tuple[VideosInMemory, VideosInMemory, int]:
    """Reads both sets with joint categories, and the number the second set adds.

    Args:
      config: the section `data`.
      part_or_split: for the wanted sets; the other set uses its training part.
      wanted: "first", "second" or "both".
    """
    joint = config.joint
    other = replace(
        config, root=joint.root, split=joint.split, held_out=(), held_out_share=0.0
    )
    parts = {
        name: part_or_split if wanted in (name, "both") else "train"
        for name in ("first", "second")
    }
    first, second = _folder(config, parts["first"]), _folder(other, parts["second"])
    categories, labels = join_categories(
        first.categories, second.categories, joint.names
    )
    known = len(first.categories)
    return (
        relabel(first, categories, range(known)),
        relabel(second, categories, labels),
        len(categories) - known,
    )


def _coco(config: Settings, part_or_split: str) -> CocoImages:
    held_out = bool(config.held_out or config.held_out_share)
    if part_or_split == "held_out" or (part_or_split in PARTS and held_out):
        raise ValueError("data.held_out: expected none, as COCO has a split for that")
    split = config.split if part_or_split in PARTS else part_or_split
    return CocoImages(on_disk(config.root, "data.root"), split)


def _folder(config: Settings, part_or_split: str) -> VideosInMemory:
    whole = part_or_split not in PARTS
    split = part_or_split if whole else config.split
    reader: Callable[..., VideosInMemory] = YouTubeVis
    root = local_root(config.root, split)
    if is_tfds(root, split):
        # Imported here, as TFDS is slow to import.
        from data_pipeline.datasets.ytvis_tfds import TfdsVideos

        reader = TfdsVideos
    if whole:
        return reader(root, split, part="all")
    apart = dict(held_out=config.held_out, share=config.held_out_share)
    return reader(root, split, **apart, part=part_or_split)


def _moving_shapes(config: Settings, part_or_split: str) -> MovingShapes:
    splits = {"train": config.split, "all": config.split, "held_out": "val"}
    split = splits.get(part_or_split, part_or_split)
    if split not in SPLITS:
        raise ValueError(f"data.split: expected one of {SPLITS}, got {split!r}")
    return MovingShapes(split, **to_dict(config.shapes))


DATASETS: dict[str, Callable[[Settings, str], Dataset]] = {
    "moving_shapes": _moving_shapes,
    "ytvis2019": _folder,
    "ytvis2021": _folder,
    "ytvis2022": _folder,
    "ovis": _folder,
    "folder": _folder,
    "coco": _coco,
}
