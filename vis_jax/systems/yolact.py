"""YOLACT on videos: objects are found frame by frame, and a tracker links them.

Bolya et al., "YOLACT: Real-time instance segmentation", ICCV 2019; trained on frames of
videos as the detector of RGNNVIS, Brissman et al., "Recurrent graph neural networks for
video instance segmentation", IJCV 2022, section 4.1. It has no track head: trackers get
no embeddings. Letters: B clips, T frames, I = B T images, M true objects, N objects of
a frame, P priors.
"""

import functools
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors import yolact
from vis_jax.detectors.yolact import (
    CODER,
    FINEST,
    FindRule,
    Levels,
    build_modules,
    canvas_of,
    combine,
    cropped_masks,
    find,
    priors_of,
)
from vis_jax.losses.multibox import Rule, YolactOutput, multibox_losses
from vis_jax.ops.boxes import clip_boxes
from vis_jax.settings import Count, Fraction, OneOf, Weight, section
from vis_jax.structures import Batch, Detections, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
)
from vis_jax.systems.system import Dtype, System
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

_CANDIDATES = 200  # priors of a class that take part in the suppression


@section
class LossSettings:
    """`loss`: the weight of every term, and which priors are trained on."""

    box_class: Weight = 1.0  # which class a prior has
    box: Weight = 1.5  # where its object is
    mask: Weight = 6.125  # which pixels it has
    semantic: Weight = 1.0  # which classes a cell has; trains the features alone
    positive: Fraction = 0.5  # least IoU with a true box of a positive prior
    negative: Fraction = 0.4  # IoU below which a prior is background
    negatives: Count = 3  # hard negatives for each positive
    masks: Count = 100  # most positives of an image whose masks are trained

    def __post_init__(self):
        if self.negative > self.positive:
            raise ValueError(
                f"negative: expected at most positive, {self.positive}, got"
                f" {self.negative}"
            )


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`; the defaults of YOLACT on COCO but for the number of objects."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # what links detections
    # Suppress whatever the classes, so that no object is found under two of them; the
    # released code evaluates with False.
    across_classes: bool = True


@section
class Settings:
    """All that this system reads of a config."""

    compute_dtype: Dtype = "float32"  # of the network; the loss is always in float32
    model: yolact.Settings = yolact.Settings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class Model(nn.Module):
    """Backbone and detector.

    Attributes:
      priors: see their settings.
      rule: how priors become objects.
      style: of the pixels, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    priors: yolact.PriorSettings
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
          train: of the backbone, and whether to drop channels.
          valid: images that count in the statistics of batch norm.
        """
        features = self.detector.dropped(self.backbone(images, train, valid), train)
        return self.detector.levels(features)

    def say(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool,
        valid: Bool[Array, "I"] | None = None,
    ) -> tuple[YolactOutput, Float32[Array, "P 4"]]:
        """What is said of images, and the priors in pixels."""
        levels = self.features(images, train, valid)
        return self.detector(levels), priors_of(levels, self.priors)

    def look(self, images: Float32[Array, "I H W 3"], size: Int32[Array, "2"]) -> Any:
        """Everything that has parameters, on images."""
        del size
        return self.say(images, False)

    def find(self, levels: Levels, size: Int32[Array, "2"]) -> Detections:
        """Objects of frames of one size, with masks over the canvas."""
        canvas, out = canvas_of(levels), self.detector(levels)
        one = functools.partial(find, rule=self.rule)
        priors = priors_of(levels, self.priors)
        found = jax.vmap(lambda x: one(x, priors, size))(out)
        chosen = jnp.take_along_axis(out.coefficients, found.priors[..., None], axis=1)
        logits = jax.vmap(combine)(out.prototypes, chosen)
        crop = functools.partial(cropped_masks, canvas=canvas)
        masks = jax.vmap(crop)(logits, found.boxes)
        boxes = clip_boxes(found.boxes, size)
        appearance = self.describe(levels, boxes)
        return on_canvas(
            Detections(
                boxes=boxes,
                scores=found.scores,
                labels=found.labels,
                valid=found.valid,
                embeds=appearance.embeds,
                looks=appearance.looks,
                mask_logits=masks,
            ),
            canvas,
        )

    def describe(self, levels: Levels, boxes: Float32[Array, "T N 4"]) -> Appearance:
        """The mean of the features in boxes, of unit length; there are no embeddings.

        Each box reads the level of its size, as regions of Mask R-CNN do.
        """
        looks = looks_in(boxes, levels, finest=FINEST)
        embeds = jnp.zeros((*boxes.shape[:2], 0), jnp.float32)
        return Appearance(embeds, looks)


def build(settings: Settings) -> System:
    """The system.

    Raises:
      ValueError: settings do not fit each other.
    """
    model = build_model(settings)
    detector = _detector(model, settings)
    loss = functools.partial(stage_one_loss, model, settings.loss)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """What finds the objects, without a tracker."""
    return _detector(build_model(settings), settings)


def build_model(settings: Settings) -> Model:
    """The network.

    Raises:
      ValueError: settings do not fit each other.
    """
    model, test = settings.model, settings.test
    _check(model, test)
    dtype = jnp.dtype(settings.compute_dtype)
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        detector=build_modules(model, dtype),
        priors=model.priors,
        rule=FindRule(
            test.score, test.nms, _CANDIDATES, test.objects, test.across_classes
        ),
        style=backbones.pixel_style(model.backbone),
    )


def _check(model: yolact.Settings, test: TestSettings) -> None:
    """Raises ValueError unless detections of known classes can be as many as asked."""
    classes = model.num_classes
    if classes < 1:
        raise ValueError(f"model.num_classes: expected at least 1, got {classes}")
    most = _CANDIDATES * (1 if test.across_classes else classes)
    if test.objects > most:
        raise ValueError(
            f"test.objects: expected at most {most}, what is left of {_CANDIDATES}"
            f" candidates{'' if test.across_classes else ' of each class'}, got"
            f" {test.objects}"
        )


def stage_one_loss(
    model: Model, settings: LossSettings, variables: dict, batch: Batch, rng
) -> tuple[Float32[Array, ""], LossAux]:
    """The loss of all frames of the clips, each an image by itself."""
    drop_rng, mask_rng = jax.random.split(rng)
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
        rngs={"dropout": drop_rng},
        mutable=["batch_stats"],
    )
    out, priors = cast(tuple[YolactOutput, Array], said)
    found = multibox_losses(
        mask_rng,
        out,
        objects_of(batch),
        image_valid=image_valid,
        priors=priors,
        coder=CODER,
        rule=Rule(
            settings.positive, settings.negative, settings.negatives, settings.masks
        ),
    )
    terms = {
        "box_class": settings.box_class * found.classes,
        "box": settings.box * found.boxes,
        "mask": settings.mask * found.masks,
        "semantic": settings.semantic * found.semantic,
    }
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
