"""The systems by the name that a config gives them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vis_jax.systems import ifr, mask_track_rcnn, osmn
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import System
from vis_jax.trackers import TRACKERS, Build


class Method(NamedTuple):
    """What can be set of a system, and what makes it.

    Attributes:
      settings: the class of its settings.
      build: (those settings) -> the system.
      detector: (those settings) -> what finds objects frame by frame, without what
        links them; None where a system does not work so.
      trackers: (those settings) -> what can link these objects, by name.
    """

    settings: type
    build: Callable[[Any], System]
    detector: Callable[[Any], Detector] | None = None
    trackers: Callable[[Any], Mapping[str, Build]] = lambda settings: TRACKERS


def _osmn(settings: Any) -> System:
    # It has all settings of the detector, and more.
    return osmn.build(settings, mask_track_rcnn.build_detector(settings))


SYSTEMS = {
    "ifr": Method(ifr.Settings, ifr.build),
    "mask_track_rcnn": Method(
        mask_track_rcnn.Settings, mask_track_rcnn.build, mask_track_rcnn.build_detector
    ),
    "osmn": Method(osmn.Settings, _osmn, mask_track_rcnn.build_detector, osmn.trackers),
}
