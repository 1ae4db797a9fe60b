"""The data sets by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from data_pipeline.datasets.dataset import Dataset
from data_pipeline.datasets.moving_shapes import SPLITS, MovingShapes
from data_pipeline.datasets.ytvis import PARTS, YouTubeVis
from data_pipeline.datasets.ytvis_layout import is_tfds


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
}
