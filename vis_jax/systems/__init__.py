"""The systems by the name a config gives them."""

from vis_jax.systems import ifr, mask_track_rcnn

SYSTEMS = {"ifr": ifr.build, "mask_track_rcnn": mask_track_rcnn.build}
# Those that find objects frame by frame, without what links them.
DETECTORS = {"mask_track_rcnn": mask_track_rcnn.build_detector}
