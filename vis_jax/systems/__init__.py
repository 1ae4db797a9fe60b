"""The systems by the name a config gives them."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from vis_jax.systems import ifr, mask_track_rcnn, osmn
from vis_jax.systems.system import System
from vis_jax.trackers import TRACKERS


def _osmn(config: ConfigDict) -> System:
    return osmn.build(config, DETECTORS[config.system](config))


# Those that find objects frame by frame, without what links them.
DETECTORS = {
    "mask_track_rcnn": mask_track_rcnn.build_detector,
    "osmn": mask_track_rcnn.build_detector,
}
SYSTEMS = {"ifr": ifr.build, "mask_track_rcnn": mask_track_rcnn.build, "osmn": _osmn}


def trackers_of(config: ConfigDict) -> Mapping[str, Callable]:
    """What can link the objects of a system in DETECTORS, by name."""
    return osmn.trackers(config) if "osmn" in config.model else TRACKERS
