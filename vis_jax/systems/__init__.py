"""The systems by the name that a config gives them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vis_jax.settings import fields_of
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


def _osmn(settings: osmn.Settings) -> System:
    return osmn.build(settings, _detector_of_osmn(settings))


def _detector_of_osmn(settings: osmn.Settings) -> Detector:
    """That of MaskTrack R-CNN, whose settings are among those of OSMN."""
    kind = mask_track_rcnn.ModelSettings
    model = kind(**{name: getattr(settings.model, name) for name in fields_of(kind)})
    return mask_track_rcnn.build_detector(
        mask_track_rcnn.Settings(
            compute_dtype=settings.compute_dtype, model=model, test=settings.test
        )
    )


SYSTEMS = {
    "ifr": Method(ifr.Settings, ifr.build),
    "mask_track_rcnn": Method(
        mask_track_rcnn.Settings, mask_track_rcnn.build, mask_track_rcnn.build_detector
    ),
    "osmn": Method(osmn.Settings, _osmn, _detector_of_osmn, osmn.trackers),
}
