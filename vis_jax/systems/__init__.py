"""The systems by the name that a config gives them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vis_jax.settings import fields_of
from vis_jax.systems import ifr, mask_track_rcnn, osmn, yolact
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import System
from vis_jax.trackers import TRACKERS, Build


class SystemEntry(NamedTuple):
    """The settings class of a system, and the functions that build it from them.

    Attributes:
      settings: a class made by `section`.
      build: (settings) -> the system.
      detector: (settings) -> the part that finds objects frame by frame, without a
        tracker; None if the system has no such part.
      trackers: (settings) -> the trackers that can link these objects, by name.
    """

    settings: type
    build: Callable[[Any], System]
    detector: Callable[[Any], Detector] | None = None
    trackers: Callable[[Any], Mapping[str, Build]] = lambda settings: TRACKERS


def _osmn(settings: osmn.Settings) -> System:
    return osmn.build(settings, _detector_of_osmn(settings))


def _detector_of_osmn(settings: osmn.Settings) -> Detector:
    """The detector of MaskTrack R-CNN, whose settings OSMN has among its own."""
    kind = mask_track_rcnn.ModelSettings
    model = kind(**{name: getattr(settings.model, name) for name in fields_of(kind)})
    return mask_track_rcnn.build_detector(
        mask_track_rcnn.Settings(
            compute_dtype=settings.compute_dtype, model=model, test=settings.test
        )
    )


SYSTEMS = {
    "ifr": SystemEntry(ifr.Settings, ifr.build),
    "mask_track_rcnn": SystemEntry(
        mask_track_rcnn.Settings, mask_track_rcnn.build, mask_track_rcnn.build_detector
    ),
    "osmn": SystemEntry(osmn.Settings, _osmn, _detector_of_osmn, osmn.trackers),
    "yolact": SystemEntry(yolact.Settings, yolact.build, yolact.build_detector),
}
