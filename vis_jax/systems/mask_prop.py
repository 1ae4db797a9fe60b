"""MaskProp: propagates masks to nearby frames and links objects whose masks agree.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020. A cascade detects the objects of every frame;
the propagation branch carries their masks to the T frames before and after; objects of
different frames whose propagated masks agree in shared frames form one track. The mask
output for a track in a frame is the one detected there, refined.
"""

import functools
from typing import cast

from vis_jax.structures import Appearance, Detections
from vis_jax.systems import mask_prop_video
from vis_jax.systems.detect_then_track import Detector, start_and_step
from vis_jax.systems.mask_prop_carriers import (
    Deform,
    Flow,
    MaskPropagator,
    distinct_detections,
)
from vis_jax.systems.mask_prop_frames import (
    FrameFinder,
    FramesInContext,
    NetworkStages,
    SingleFrames,
    make_look,
)
from vis_jax.systems.mask_prop_loss import make_loss
from vis_jax.systems.mask_prop_model import (
    Model,
    build_model,
    find,
    mask_cells,
    p3_of,
    see,
)
from vis_jax.systems.mask_prop_settings import Settings
from vis_jax.systems.system import System, window_of
from vis_jax.systems.tracked_detector import (
    DetectionShapes,
    empty_detections,
    make_init,
)
from vis_jax.trackers import TRACKERS

# Tracker that links objects when no masks are propagated.
_TRACKERS = {"iou": "iou", "track_head": "mask_track"}


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = build_model(settings), settings.test
    detector, loss = _detector(model, settings), make_loss(model, settings)
    if test.propagation in _TRACKERS:
        name = _TRACKERS[test.propagation]
        tracker = TRACKERS[name](getattr(test.trackers, name), test.tracks)
        start, step = start_and_step(
            detector,
            tracker,
            slots=test.tracks,
            classes=settings.model.num_classes,
            chunk=test.chunk,
        )
        return System(detector.init, loss, start, step, window_of(test))
    carrier: MaskPropagator = Deform(model)
    if test.propagation == "flow":
        carrier = Flow(test.flow)
    delay = 0 if test.mode == "video" else test.radius
    finder = _finder(model, carrier, settings)
    return System(
        detector.init,
        loss,
        functools.partial(mask_prop_video.start, finder, carrier, settings, delay),
        functools.partial(mask_prop_video.step, finder, carrier, test),
        window_of(test)._replace(delay=delay + finder.delay),
    )


def _finder(model: Model, carrier: MaskPropagator, settings: Settings) -> FrameFinder:
    """Builds the finder of objects whose masks are propagated."""
    test = settings.test
    if settings.model.temporal == "none":
        return SingleFrames(make_look(model, carrier, test), test.chunk)
    delay = 0 if test.mode == "video" else test.support
    return FramesInContext(
        NetworkStages(model, carrier, test), test.support, delay, test.chunk
    )


def _detector(model: Model, settings: Settings) -> Detector:
    """Builds the per-frame detector, for use with a tracker."""

    def detect(variables, features, size) -> Detections:
        test = settings.test
        found = find(model, variables, features, size, refined=test.refine)
        p3 = p3_of(features.features.levels)
        return distinct_detections(found, (p3.shape[1], p3.shape[2]), test)

    def describe(variables, features, boxes) -> Appearance:
        found = model.apply(variables, features.features, boxes, method="describe")
        return cast(Appearance, found)

    shapes = DetectionShapes(
        objects=settings.test.objects,
        classes=settings.model.num_classes,
        embeds=settings.model.track_head.width,
        descriptors=settings.model.box_head.width,
        mask=mask_cells(settings),
        covers=True,
    )
    features = functools.partial(see, model)
    empty = functools.partial(empty_detections, shapes)
    return Detector(make_init(model), features, detect, describe, empty)
