"""Trackers by name; a config has each one's settings under `test.trackers`."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from vis_jax.settings import section
from vis_jax.trackers import deep_sort, iou, mask_track, seq
from vis_jax.trackers.deep_sort import Settings as DeepSort
from vis_jax.trackers.iou import Settings as Iou
from vis_jax.trackers.mask_track import Settings as MaskTrack
from vis_jax.trackers.seq import Settings as Seq
from vis_jax.trackers.tracker import Tracker


@section
class Settings:
    """`test.trackers`: the settings of every tracker; `test.tracker` chooses one.

    Those of the YouTube-VIS paper and, where it says nothing, of its released code.
    """

    mask_track: MaskTrack = MaskTrack()
    iou: Iou = Iou()
    deep_sort: DeepSort = DeepSort()
    seq: Seq = Seq()


@runtime_checkable
class Build(Protocol):
    """Builds a tracker."""

    def __call__(self, settings: Any, slots: int, /) -> Tracker:
        """Returns the tracker.

        Args:
          settings: settings of this tracker.
          slots: most tracks of a video.
        """
        ...


TRACKERS: Mapping[str, Build] = {
    "deep_sort": deep_sort.build,
    "iou": iou.build,
    "mask_track": mask_track.build,
    "seq": seq.build,
}
