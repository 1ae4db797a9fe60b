"""CondInst on videos: objects are found frame by frame, and a tracker links them.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020, with the
training targets and the suppression of the image model of IAI, Zhu et al., "Instance as
identity: a generic online paradigm for video instance segmentation", ECCV 2022. It has
no track head: trackers get no embeddings. Letters: B clips, T frames, I = B T images, N
objects of a frame.
"""

import functools
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.condinst import (
    CondInstOutput,
    FindRule,
    build_modules,
    find,
    mask_logits,
    shown_masks,
)
from vis_jax.detectors.condinst_losses import image_losses
from vis_jax.detectors.condinst_settings import (
    LossSettings,
    ModelSettings,
    pixel_style,
)
from vis_jax.detectors.fcos import FINEST, STRIDES, Levels, Places, cells_of, places_of
from vis_jax.settings import Count, OneOf, section
from vis_jax.structures import Batch, Detections, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import Appearance, Detector
from vis_jax.systems.system import Dtype, System, check_classes
from vis_jax.systems.tracked_detector import (
    Shapes,
    looks_in,
    make_detector,
    make_system,
    objects_of,
    on_canvas,
)
from vis_jax.trackers import TRACKERS
from vis_jax.typing import Array, Bool, Float32, Int32


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`; the suppression is blind to classes."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # what links detections
    # Most locations of a level that take part in the suppression.
    candidates: Count = 200


@section
class Settings:
    """All that this system reads of a config."""

    compute_dtype: Dtype = "float32"  # of the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class Model(nn.Module):
    """Backbone and detector.

    Attributes:
      rule: how locations become objects.
      style: of the pixels, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    rule: FindRule
    style: str

    def features(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool = False,
        valid: Bool[Array, "I"] | None = None,
    ) -> Levels:
        """The pyramid of normalised images, sides multiples of 32 pixels.

        Args:
          images: normalised.
          train: of the backbone.
          valid: images that count in the statistics of batch norm.
        """
        return self.detector.levels(self.backbone(images, train, valid))

    def say(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool,
        valid: Bool[Array, "I"] | None = None,
    ) -> tuple[CondInstOutput, Places]:
        """What is said of images, and the locations it is said of."""
        levels = self.features(images, train, valid)
        return self.detector(levels, train, valid), places_of(cells_of(levels))

    def look(self, images: Float32[Array, "I H W 3"], size: Int32[Array, "2"]) -> Any:
        """Everything that has parameters, on images."""
        del size
        return self.say(images, False)

    def find(self, levels: Levels, size: Int32[Array, "2"]) -> Detections:
        """Objects of frames of one size, with masks over the canvas."""
        cells, out = cells_of(levels), self.detector(levels)
        places = places_of(cells)
        one = functools.partial(find, cells=cells, rule=self.rule)
        found = jax.vmap(lambda x: one(x, places, size))(out.dense)
        chosen = found.chosen[..., None]
        filters = jnp.take_along_axis(out.dense.filters, chosen, axis=1)
        at = Places(*(x[found.chosen] for x in places))
        masks = jax.vmap(shown_masks)(jax.vmap(mask_logits)(filters, out.features, at))
        appearance = self.describe(levels, found.boxes)
        height, width = cells[0]
        return on_canvas(
            Detections(
                boxes=found.boxes,
                scores=found.scores,
                labels=found.labels,
                valid=found.valid,
                embeds=appearance.embeds,
                looks=appearance.looks,
                mask_logits=masks,
            ),
            (STRIDES[0] * height, STRIDES[0] * width),
        )

    def describe(self, levels: Levels, boxes: Float32[Array, "T N 4"]) -> Appearance:
        """The mean of the features in boxes; there are no embeddings."""
        embeds = jnp.zeros((*boxes.shape[:2], 0), jnp.float32)
        return Appearance(embeds, looks_in(boxes, levels, finest=FINEST))


def build(settings: Settings) -> System:
    """The system.

    Raises:
      ValueError: settings do not fit each other.
    """
    model = build_model(settings)
    detector = _detector(model, settings)
    loss = functools.partial(frame_loss, model, settings.loss)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """What finds the objects, without a tracker."""
    return _detector(build_model(settings), settings)


def build_model(settings: Settings) -> Model:
    """The network.

    Raises:
      ValueError: the number of classes is not known.
    """
    model, test = settings.model, settings.test
    check_classes(model.num_classes)
    dtype = jnp.dtype(settings.compute_dtype)
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        detector=build_modules(
            model.fpn, model.head, model.masks, classes=model.num_classes, dtype=dtype
        ),
        rule=FindRule(test.score, test.nms, test.candidates, test.objects),
        style=pixel_style(model.pixels, model.backbone),
    )


def frame_loss(
    model: Model, settings: LossSettings, variables: dict, batch: Batch, rng
) -> tuple[Float32[Array, ""], LossAux]:
    """The loss of all frames of the clips, each an image by itself."""
    pixels = jax.vmap(functools.partial(normalize, style=model.style))
    images = pixels(batch.images, batch.sizes)
    images = images.reshape(-1, *images.shape[2:])
    image_valid = batch.frame_valid.reshape(-1)
    said, updates = model.apply(
        variables,
        images,
        True,
        image_valid,
        method=Model.say,
        mutable=["batch_stats"],
    )
    out, places = cast(tuple[CondInstOutput, Places], said)
    found = image_losses(
        rng, settings, out, objects_of(batch), places=places, image_valid=image_valid
    )
    terms = {name: getattr(settings, name) * x for name, x in found.terms.items()}
    stats = dict(updates.get("batch_stats", {}))
    notes = {"positives_left_out": found.left_out}
    loss = sum(terms.values(), start=jnp.float32(0.0))
    return loss, LossAux(terms, stats, notes)


def _detector(model: Model, settings: Settings) -> Detector:
    """What finds objects, as functions of variables."""
    shapes = Shapes(
        objects=settings.test.objects,
        classes=settings.model.num_classes,
        embeds=0,
        looks=settings.model.fpn.dim,
        mask=(1, 1),
        covers=True,
    )
    return make_detector(model, shapes, model.style)
