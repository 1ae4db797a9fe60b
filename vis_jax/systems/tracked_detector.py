"""Combines a per-frame detector and any tracker into a system.

Letters: B clips, T frames, I = B T images, M ground-truth objects, N objects per frame.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.two_stage import MASK_SIDE
from vis_jax.losses.multibox import ImageObjects
from vis_jax.ops.padding import zero_padding
from vis_jax.ops.roi_align import ALIGNED, pyramid_roi_align, roi_levels
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
from vis_jax.typing import Array, Float, Float32

# Regions of up to twice this side read the finest level; sampling points per axis of a
# cell; cells per axis of the mean feature.
_FINEST_SIDE, _POOL_SAMPLES, _MEAN_SIDE = 112.0, 2, 3


class DetectionShapes(NamedTuple):
    """Sizes of the arrays in a network's detections."""

    objects: int  # per frame
    classes: int
    embeds: int  # 0 without a track head
    descriptors: int
    mask: tuple[int, int]  # height and width in cells
    covers: bool = False  # whether masks cover regions other than the boxes


def make_detector(model: nn.Module, shapes: DetectionShapes, style: str) -> Detector:
    """Wraps a network as a detector.

    Args:
      model: with the methods `features` (normalised images) -> pyramid, `find`
        (pyramid, size [2]) -> Detections, `describe` (pyramid, boxes) -> Appearance,
        and `look` (images, size), which runs every part that has parameters.
      shapes: shapes of its detections.
      style: pixel normalisation, see `normalize`.
    """

    def features(variables, images, size):
        pixels = normalize(images, size, style=style)
        return model.apply(variables, pixels, method="features")

    def detect(variables, features, size) -> Detections:
        found = model.apply(variables, features, size, method="find")
        return cast(Detections, found)

    def describe(variables, features, boxes) -> Appearance:
        found = model.apply(variables, features, boxes, method="describe")
        return cast(Appearance, found)

    empty = functools.partial(empty_detections, shapes)
    return Detector(make_init(model), features, detect, describe, empty)


def make_init(model: nn.Module) -> Init:
    """Returns the `init` of a network whose method `look` runs all its parts.

    Args:
      model: see `make_detector`.
    """

    def init(rng, batch: Batch):
        images = jnp.zeros((1, *batch.images.shape[2:]), jnp.float32)
        return model.init(rng, images, batch.sizes[0], method="look")

    return init


def region_detector(model: Any, settings: Any) -> Detector:
    """Wraps a network with box and mask heads as a detector.

    Args:
      model: see `make_detector`; also has the attribute `style`.
      settings: settings of the system.
    """
    shapes = DetectionShapes(
        objects=settings.test.objects,
        classes=settings.model.num_classes,
        embeds=settings.model.track_head.width,
        descriptors=settings.model.box_head.width,
        mask=(2 * MASK_SIDE, 2 * MASK_SIDE),
    )
    return make_detector(model, shapes, model.style)


def dense_detector(model: Any, settings: Any) -> Detector:
    """Wraps a network that predicts masks over the whole frame as a detector.

    Args:
      model, settings: see `region_detector`.
    """
    shapes = DetectionShapes(
        objects=settings.test.objects,
        classes=settings.model.num_classes,
        embeds=settings.model.track_head.width,
        descriptors=settings.model.fpn.dim,
        mask=(1, 1),
        covers=True,
    )
    return make_detector(model, shapes, model.style)


def empty_detections(shapes: DetectionShapes, frames: int) -> Detections:
    """Returns detections of some frames that are all padding."""
    lead = (frames, shapes.objects)

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*lead, *shape), jnp.float32)

    return Detections(
        boxes=zeros(4),
        scores=zeros(),
        labels=jnp.full(lead, shapes.classes, jnp.int32),
        valid=jnp.zeros(lead, bool),
        embeds=zeros(shapes.embeds),
        descriptors=zeros(shapes.descriptors),
        mask_logits=zeros(*shapes.mask),
        mask_boxes=zeros(4) if shapes.covers else None,
    )


def check_trained(detector: bool, width: int) -> None:
    """Raises ValueError if nothing would be trained.

    Args:
      detector: `loss.detector`.
      width: `model.track_head.width`.
    """
    if not (detector or width):
        raise ValueError(
            "loss.detector: expected True without a track head (model.track_head.width"
            " 0), got False"
        )


def make_system(
    detector: Detector,
    loss: Loss,
    test: TestSettings,
    classes: int,
    *,
    trackers: Mapping[str, Build] = TRACKERS,
    init: Init | None = None,
) -> System:
    """Combines a detector with the tracker `test.tracker`.

    Args:
      detector: finds objects in frames.
      loss: loss of the system.
      test: settings of the config.
      classes: K.
      trackers: available trackers by name.
      init: `init` of the system; None: the detector's.

    Raises:
      ValueError: the tracker needs the whole video, which `test.mode` does not allow.
    """
    start, step = start_and_step(
        detector,
        make_tracker(test, trackers),
        slots=test.tracks,
        classes=classes,
        chunk=test.chunk,
    )
    return System(init or detector.init, loss, start, step, window_of(test))


def pool_in(
    boxes: Float32[Array, "T N 4"],
    levels: tuple[Float[Array, "T _ _ D"], ...],
    *,
    finest: int,
    side: int,
) -> Float[Array, "T N S S D"]:
    """Pools the features in boxes.

    Each box reads the level for its size, as in Mask R-CNN.

    Args:
      boxes: in pixels.
      levels: levels of the pyramid, finest first.
      finest: number of the finest level; its stride is 2 ** finest.
      side: S, cells per axis of a box.
    """

    def one(
        levels: tuple[Array, ...], boxes: Float32[Array, "N 4"]
    ) -> Float[Array, "N S S D"]:
        return pyramid_roi_align(
            levels,
            boxes,
            roi_levels(boxes, levels=len(levels), finest=_FINEST_SIDE),
            scales=tuple(2.0**-n for n in range(finest, finest + len(levels))),
            size=(side, side),
            samples=_POOL_SAMPLES,
            convention=ALIGNED,
        )

    return jax.vmap(one)(levels, boxes)


def descriptors_in(
    boxes: Float32[Array, "T N 4"],
    levels: tuple[Float[Array, "T _ _ D"], ...],
    *,
    finest: int,
) -> Float32[Array, "T N D"]:
    """Returns the unit-length mean of the features in boxes; see `pool_in`."""
    pooled = pool_in(boxes, levels, finest=finest, side=_MEAN_SIDE)
    descriptors = pooled.astype(jnp.float32).mean(axis=(2, 3))
    length = jnp.linalg.norm(descriptors, axis=-1, keepdims=True)
    return descriptors / jnp.maximum(length, 1e-6)


def objects_of(batch: Batch) -> ImageObjects:
    """Returns the ground truth of every frame, [I, M]; the data have no crowds."""

    def frames(x: Array) -> Array:
        return jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], *x.shape[3:])

    present = batch.present & batch.instance_valid[..., None]
    present &= batch.frame_valid[:, None]
    labels = jnp.broadcast_to(batch.labels[..., None], present.shape)
    valid = frames(present)
    return ImageObjects(
        boxes=frames(batch.boxes),
        labels=frames(labels),
        masks=frames(batch.masks),
        valid=valid,
        crowd=jnp.zeros_like(valid),
    )


def on_canvas(found: Detections, canvas: tuple[int, int]) -> Detections:
    """Returns the detections with masks over the canvas, zero in padding.

    Args:
      found: [T, N]; in padding only scores and labels matter.
      canvas: height and width in pixels.
    """
    whole = jnp.array([0, 0, *canvas[::-1]], jnp.float32)
    whole = jnp.broadcast_to(whole.reshape(1, 1, 4), found.boxes.shape)
    fields = {
        "boxes": found.boxes,
        "embeds": found.embeds,
        "descriptors": found.descriptors,
        "mask_logits": found.mask_logits,
        "mask_boxes": whole,
    }
    real = {name: zero_padding(x, found.valid) for name, x in fields.items()}
    return found._replace(**real)
