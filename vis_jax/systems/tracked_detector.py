"""A network that finds objects frame by frame, with any tracker, as a system."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.structures import Batch, Detections
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
    TestSettings,
    make_tracker,
    start_and_step,
)
from vis_jax.systems.system import Init, Loss, System, window_of
from vis_jax.trackers import TRACKERS, Build
from vis_jax.typing import Array


class Shapes(NamedTuple):
    """Lengths of the detections that a network gives."""

    objects: int  # of a frame
    classes: int
    embeds: int  # 0 without a track head
    looks: int
    mask: tuple[int, int]  # height and width in cells
    covers: bool = False  # whether masks cover something else than the boxes


def make_detector(model: nn.Module, shapes: Shapes, style: str) -> Detector:
    """The functions of a network.

    Args:
      model: with the methods `features` (normalised images) -> pyramid, `find`
        (pyramid, size [2]) -> Detections, `describe` (pyramid, boxes) -> Appearance,
        and `look` (images, size), which runs everything that has parameters.
      shapes: of what it finds.
      style: of its pixels, see `normalize`.
    """

    def init(rng, batch: Batch):
        images = jnp.zeros((1, *batch.images.shape[2:]), jnp.float32)
        return model.init(rng, images, batch.sizes[0], method="look")

    def features(variables, images, size):
        pixels = normalize(images, size, style=style)
        return model.apply(variables, pixels, method="features")

    def detect(variables, features, size) -> Detections:
        found = model.apply(variables, features, size, method="find")
        return cast(Detections, found)

    def describe(variables, features, boxes) -> Appearance:
        found = model.apply(variables, features, boxes, method="describe")
        return cast(Appearance, found)

    def empty(frames: int) -> Detections:
        lead = (frames, shapes.objects)

        def zeros(*shape: int) -> Array:
            return jnp.zeros((*lead, *shape), jnp.float32)

        return Detections(
            boxes=zeros(4),
            scores=zeros(),
            labels=jnp.full(lead, shapes.classes, jnp.int32),
            valid=jnp.zeros(lead, bool),
            embeds=zeros(shapes.embeds),
            looks=zeros(shapes.looks),
            mask_logits=zeros(*shapes.mask),
            mask_boxes=zeros(4) if shapes.covers else None,
        )

    return Detector(init, features, detect, describe, empty)


def make_system(
    detector: Detector,
    loss: Loss,
    test: TestSettings,
    classes: int,
    *,
    trackers: Mapping[str, Build] = TRACKERS,
    init: Init | None = None,
) -> System:
    """A detector with the tracker `test.tracker`.

    Args:
      detector: finds the objects.
      loss: of the system.
      test: of the config.
      classes: K.
      trackers: those that there are, by name.
      init: of the system; None: that of the detector.

    Raises:
      ValueError: the tracker has to see all frames, which `test.mode` does not allow.
    """
    start, step = start_and_step(
        detector,
        make_tracker(test, trackers),
        slots=test.tracks,
        classes=classes,
        chunk=test.chunk,
    )
    return System(init or detector.init, loss, start, step, window_of(test))
