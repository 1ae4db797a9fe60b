"""Trackers by the name that a config gives them under `test.trackers`."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from vis_jax.trackers import deep_sort, iou, mask_track, seq
from vis_jax.trackers.settings import read_settings
from vis_jax.trackers.tracker import Tracker


def _builder(name: str, settings: type, build: Callable) -> Callable:
    def from_config(values: Mapping | ConfigDict, slots: int) -> Tracker:
        """The tracker of these settings for videos of at most `slots` tracks.

        Raises:
          ValueError: a setting is missing, unknown or out of its range.
        """
        return build(read_settings(f"test.trackers.{name}", settings, values), slots)

    return from_config


TRACKERS: dict[str, Callable[[Mapping, int], Tracker]] = {
    "deep_sort": _builder("deep_sort", deep_sort.Settings, deep_sort.build),
    "iou": _builder("iou", iou.Settings, iou.build),
    "mask_track": _builder("mask_track", mask_track.Settings, mask_track.build),
    "seq": _builder("seq", seq.Settings, seq.build),
}


def build_tracker(
    test: Mapping | ConfigDict, trackers: Mapping[str, Callable]
) -> Tracker:
    """The tracker `test.tracker`, with `test.tracks` slots and its `test.trackers`.

    Args:
      test: the part of a config, or a ConfigDict.
      trackers: by name, such as TRACKERS.

    Raises:
      ValueError: the name or one of its settings is wrong.
    """
    name, known = test["tracker"], sorted(trackers)
    if name not in trackers:
        raise ValueError(f"test.tracker: expected one of {known}, got {name!r}")
    if name not in test["trackers"]:
        given = sorted(test["trackers"])
        raise ValueError(f"test.trackers.{name}: expected settings, got only {given}")
    return trackers[name](test["trackers"][name], test["tracks"])
