"""The settings of the training clips, read once and checked."""

from collections.abc import Sequence
from typing import NamedTuple


class ClipConfig(NamedTuple):
    """What a training clip is; see `read_clip_config` for the bounds."""

    frames: int  # T
    frame_range: int  # frames on either side of the key frame
    short_side: tuple[int, ...]  # pixels; one is drawn for each clip
    long_side: int  # pixels, at most
    canvas: tuple[int, int]  # height, width in pixels of every batch
    instances: int  # M, instance slots
    crop: tuple[int, int] | None  # smallest and largest side in source pixels
    flip: float  # probability
    colour: float  # largest relative change; 0 = off
    batch_size: int  # clips over all hosts


def read_clip_config(config: object) -> ClipConfig:
    """Reads the settings from the attributes of `config`.

    Args:
      config: an ml_collections ConfigDict, or anything with the attributes of
        `ClipConfig`; further attributes are left alone.

    Raises:
      ValueError: a setting that is missing or cannot be; names it.
    """
    if isinstance(config, ClipConfig):
        return config
    given = {name: _setting(config, name) for name in ClipConfig._fields}
    crop = given["crop"]
    result = ClipConfig(
        frames=_whole("frames", given["frames"], 1),
        frame_range=_whole("frame_range", given["frame_range"], 0),
        short_side=_wholes("short_side", given["short_side"]),
        long_side=_whole("long_side", given["long_side"], 1),
        canvas=_pair("canvas", given["canvas"]),
        instances=_whole("instances", given["instances"], 1),
        crop=None if crop is None else _pair("crop", crop),
        flip=_share("flip", given["flip"]),
        colour=_share("colour", given["colour"]),
        batch_size=_whole("batch_size", given["batch_size"], 1),
    )
    if result.crop is not None and result.crop[0] > result.crop[1]:
        raise ValueError(f"data.crop: expected (smallest, largest), got {result.crop}")
    if result.frames > 2 * result.frame_range + 1:
        raise ValueError(
            f"data.frames: expected at most 2 * frame_range + 1 ="
            f" {2 * result.frame_range + 1} frames, got {result.frames}"
        )
    return result


def local_batch_size(batch_size: int, *, host_index: int, host_count: int) -> int:
    """Clips of one batch that a host makes.

    Raises:
      ValueError: the batch does not divide over the hosts.
    """
    if host_count < 1 or not 0 <= host_index < host_count:
        raise ValueError(
            f"host_index: expected 0 .. host_count - 1 = {host_count - 1},"
            f" got {host_index}"
        )
    if batch_size % host_count:
        raise ValueError(
            f"data.batch_size: expected a multiple of the {host_count} hosts,"
            f" got {batch_size}"
        )
    return batch_size // host_count


def _setting(config: object, name: str) -> object:
    try:
        return getattr(config, name)
    except AttributeError:
        raise ValueError(f"data.{name}: expected a value, got none") from None


def _whole(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        expected = f"a whole number of at least {low}"
        raise ValueError(f"data.{name}: expected {expected}, got {value!r}")
    return value


def _wholes(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"data.{name}: expected whole numbers, got {values!r}")
    return tuple(_whole(name, value, 1) for value in values)


def _pair(name: str, values: object) -> tuple[int, int]:
    numbers = _wholes(name, values)
    if len(numbers) != 2:
        raise ValueError(f"data.{name}: expected 2 whole numbers, got {values!r}")
    return numbers[0], numbers[1]


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"data.{name}: expected a number, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"data.{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)
