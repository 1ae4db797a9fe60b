"""The data sets by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from data_pipeline.augment.pseudo_clip import read_motion
from data_pipeline.datasets.coco import CocoImages
from data_pipeline.datasets.dataset import Dataset
from data_pipeline.datasets.joint import JointClips
from data_pipeline.datasets.moving_shapes import SPLITS, MovingShapes
from data_pipeline.datasets.ytvis import PARTS, YouTubeVis
from data_pipeline.datasets.ytvis_layout import is_tfds


@runtime_checkable
class Stills(Protocol):
    """The settings of images that are trained on with the videos, `data.stills`."""

    root: str
    split: str
    share: float
    zoom: tuple[float, float]
    angle: float
    names: Sequence[tuple[str, str]]


@runtime_checkable
class DataConfig(Protocol):
    """The settings that say which data set; an ml_collections ConfigDict has them."""

    name: str
    root: str
    split: str
    held_out: Sequence[str | int]
    shapes: Mapping


def make_dataset(config: DataConfig, part_or_split: str = "train") -> Dataset:
    """Makes the data set that a config names.

    Args:
      config: has `name`; for folders `root`, `split` and `held_out`, for moving shapes
        `shapes`, a mapping with the arguments of `MovingShapes`. Where `root` has what
        `ytvis_tfds_builder` wrote, that is read.
      part_or_split: "train" is `config.split` without the held-out videos, "held_out"
        is those, "all" is both; any other is the name of a split, taken whole. For
        moving shapes "train" and "all" are `config.split`, "held_out" is "val".

    Raises:
      ValueError: an unknown name, or arguments that cannot be.
      DataError: a defect of the files.
    """
    if config.name not in DATASETS:
        raise ValueError(
            f"data.name: expected one of {sorted(DATASETS)}, got {config.name!r}"
        )
    return DATASETS[config.name](config, part_or_split)


def make_training_set(config: DataConfig) -> Dataset:
    """The part "train" of what a config names, with the images of `config.stills`.

    Args:
      config: as for `make_dataset`. If `stills.share` is more than 0, this share of the
        clips is of images in motion; of COCO as `name`, all are.

    Raises:
      ValueError: an unknown name, or arguments that cannot be.
      DataError: a defect of the files.
    """
    dataset = make_dataset(config, "train")
    stills = getattr(config, "stills", None)  # configs of earlier runs have none
    if isinstance(dataset, CocoImages):
        if stills is None:
            raise ValueError("data.stills: expected how far images move, got none")
        motion = read_motion(stills.zoom, stills.angle)
        return JointClips(None, dataset, share=1.0, motion=motion)
    if stills is None or stills.share == 0:
        return dataset
    motion = read_motion(stills.zoom, stills.angle)
    images = CocoImages(
        stills.root, stills.split, categories=dataset.categories, names=stills.names
    )
    return JointClips(dataset, images, share=stills.share, motion=motion)


def _coco(config: DataConfig, part_or_split: str) -> CocoImages:
    if part_or_split == "held_out" or (part_or_split in PARTS and config.held_out):
        raise ValueError("data.held_out: expected none, as COCO has a split for that")
    split = config.split if part_or_split in PARTS else part_or_split
    return CocoImages(config.root, split)


def _folder(config: DataConfig, part_or_split: str) -> Dataset:
    whole = part_or_split not in PARTS
    split = part_or_split if whole else config.split
    reader: Callable[..., Dataset] = YouTubeVis
    if is_tfds(config.root, split):
        # Importing TFDS takes a while, which readers of other data sets are spared.
        from data_pipeline.datasets.ytvis_tfds import TfdsVideos

        reader = TfdsVideos
    if whole:
        return reader(config.root, split, part="all")
    return reader(config.root, split, held_out=config.held_out, part=part_or_split)


def _moving_shapes(config: DataConfig, part_or_split: str) -> MovingShapes:
    splits = {"train": config.split, "all": config.split, "held_out": "val"}
    split = splits.get(part_or_split, part_or_split)
    if split not in SPLITS:
        raise ValueError(f"data.split: expected one of {SPLITS}, got {split!r}")
    return MovingShapes(split, **config.shapes)


DATASETS: dict[str, Callable[[DataConfig, str], Dataset]] = {
    "moving_shapes": _moving_shapes,
    "ytvis2019": _folder,
    "ytvis2021": _folder,
    "ytvis2022": _folder,
    "ovis": _folder,
    "folder": _folder,
    "coco": _coco,
}
