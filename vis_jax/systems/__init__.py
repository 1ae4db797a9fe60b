"""Systems by the name used in configs."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from vis_jax.settings import fields_of
from vis_jax.systems import (
    cascade,
    condinst,
    iai,
    iai_mask_rcnn,
    ifr,
    mask_prop,
    mask_track_rcnn,
    rgnn_vis,
    videomt,
    yolact,
)
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.osmn import system as osmn
from vis_jax.systems.system import System
from vis_jax.trackers import TRACKERS, Build


@runtime_checkable
class BuildSystem(Protocol):
    """Builds a system from its settings."""

    def __call__(self, settings: Any, /) -> System:
        """Returns the system.

        Raises:
          ValueError: settings are inconsistent.
        """
        ...


@runtime_checkable
class BuildDetector(Protocol):
    """Builds the detector of a system, without a tracker."""

    def __call__(self, settings: Any, /) -> Detector:
        """Returns the detector.

        Raises:
          ValueError: settings are inconsistent.
        """
        ...


@runtime_checkable
class ListTrackers(Protocol):
    """Lists the trackers that can link the detections of a system."""

    def __call__(self, settings: Any, /) -> Mapping[str, Build]:
        """Returns them by name."""
        ...


class SystemEntry(NamedTuple):
    """Settings class of a system, and the functions that build it.

    Attributes:
      settings: a class made by `section`.
      build: builds the system.
      detector: builds the per-frame detector; None if detections depend on earlier
        tracks.
      trackers: trackers that can link these detections.
    """

    settings: type
    build: BuildSystem
    detector: BuildDetector | None = None
    trackers: ListTrackers = lambda settings, /: TRACKERS


def _osmn(settings: osmn.Settings) -> System:
    return osmn.build(settings, _detector_of_osmn(settings))


def _detector_of_osmn(settings: osmn.Settings) -> Detector:
    """Builds the detector of MaskTrack R-CNN, whose settings OSMN includes."""
    kind = mask_track_rcnn.ModelSettings
    model = kind(**{name: getattr(settings.model, name) for name in fields_of(kind)})
    return mask_track_rcnn.build_detector(
        mask_track_rcnn.Settings(
            compute_dtype=settings.compute_dtype, model=model, test=settings.test
        )
    )


SYSTEMS = {
    "cascade": SystemEntry(cascade.Settings, cascade.build, cascade.build_detector),
    "condinst": SystemEntry(condinst.Settings, condinst.build, condinst.build_detector),
    "iai": SystemEntry(iai.Settings, iai.build),
    "iai_mask_rcnn": SystemEntry(iai_mask_rcnn.Settings, iai_mask_rcnn.build),
    "ifr": SystemEntry(ifr.Settings, ifr.build),
    "mask_prop": SystemEntry(mask_prop.Settings, mask_prop.build),
    "mask_track_rcnn": SystemEntry(
        mask_track_rcnn.Settings, mask_track_rcnn.build, mask_track_rcnn.build_detector
    ),
    "osmn": SystemEntry(osmn.Settings, _osmn, _detector_of_osmn, osmn.trackers),
    "rgnn_vis": SystemEntry(rgnn_vis.Settings, rgnn_vis.build),
    "videomt": SystemEntry(videomt.Settings, videomt.build),
    "yolact": SystemEntry(yolact.Settings, yolact.build, yolact.build_detector),
}
