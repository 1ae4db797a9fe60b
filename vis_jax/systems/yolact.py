"""YOLACT on videos: per-frame detection, linked by a tracker.

Bolya et al., "YOLACT: Real-time instance segmentation", ICCV 2019; trained on video
frames as the detector of RGNNVIS, Brissman et al., "Recurrent graph neural networks for
video instance segmentation", IJCV 2022, section 4.1. It may have the track head of
MaskTrack R-CNN, as in table 9 of RGNNVIS; otherwise trackers get no embeddings.
Letters: B clips, T frames, I = B T images, M ground-truth objects, N objects per frame,
P priors, E embedding channels.
"""

import functools
from typing import Annotated, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association.track_head import OptionalSettings as TrackHeadSettings
from vis_jax.association.track_head import TrackHead
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors import yolact
from vis_jax.detectors.frame_pair import draw_roles, frames_at
from vis_jax.detectors.yolact import (
    CODER,
    FINEST,
    Levels,
    YolactRule,
    build_modules,
    canvas_of,
    combine,
    cropped_masks,
    find,
    priors_of,
)
from vis_jax.losses.multibox import PriorRule, YolactOutput, multibox_losses
from vis_jax.ops.boxes import clip_boxes
from vis_jax.settings import Count, Fraction, OneOf, Weight, section
from vis_jax.structures import Batch, Detections, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
)
from vis_jax.systems.system import Dtype, System, check_classes
from vis_jax.systems.track_pairs import ImageDetections, pair_loss
from vis_jax.systems.tracked_detector import (
    check_trained,
    dense_detector,
    descriptors_in,
    make_system,
    objects_of,
    on_canvas,
    pool_in,
)
from vis_jax.trackers import TRACKERS
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

_CANDIDATES = 200  # priors per class that take part in NMS
_TRACK_SIDE = 7  # cells per axis that the track head pools, as in MaskTrack R-CNN


@section
class ModelSettings(yolact.Settings):
    """`model`."""

    track_head: TrackHeadSettings = TrackHeadSettings()


@section
class LossSettings:
    """`loss`: the weight of each term, and which priors are trained."""

    box_class: Weight = 1.0  # class of priors
    box: Weight = 1.5  # box of priors
    mask: Weight = 6.125  # mask of priors
    semantic: Weight = 1.0  # classes of a cell; only trains the features
    positive: Fraction = 0.5  # minimum IoU of a positive prior with a ground-truth box
    negative: Fraction = 0.4  # IoU below which a prior is background
    negatives: Count = 3  # hard negatives per positive
    masks: Count = 100  # most positives per image whose masks are trained
    track: Weight = 1.0  # identity of regions across frames, if there is a head
    # Train the detector. False: it runs as at test time, and only the track head is
    # trained; the detector's rate must then be 0, as weight decay needs no gradient.
    detector: bool = True

    def __post_init__(self) -> None:
        if self.negative > self.positive:
            raise ValueError(
                f"negative: expected at most positive, {self.positive}, got"
                f" {self.negative}"
            )


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`; YOLACT's defaults on COCO, except for the number of objects."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # links the detections
    # Class-agnostic NMS, so that no object is detected under two classes; the released
    # code evaluates with False.
    across_classes: bool = True


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class NetworkOutput(NamedTuple):
    """Output of the network for images."""

    levels: Levels
    out: YolactOutput
    priors: Float32[Array, "P 4"]  # in pixels


class Model(nn.Module):
    """Backbone, detector and track head.

    Attributes:
      track_head: None for no embeddings.
      priors: see their settings.
      rule: turns priors into objects.
      style: pixel normalisation, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    track_head: nn.Module | None
    priors: yolact.PriorSettings
    rule: YolactRule
    style: str

    def features(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool = False,
        valid: Bool[Array, "I"] | None = None,
    ) -> Levels:
        """Returns the pyramid of normalised images; sides are multiples of 32 pixels.

        Args:
          images: normalised.
          train: train mode of the backbone, including channel dropout.
          valid: images that count in batch norm statistics.
        """
        features = self.detector.dropped(self.backbone(images, train, valid), train)
        return self.detector.levels(features)

    def say(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool,
        valid: Bool[Array, "I"] | None = None,
    ) -> NetworkOutput:
        """Returns the network output for images."""
        levels = self.features(images, train, valid)
        return NetworkOutput(
            levels, self.detector(levels), priors_of(levels, self.priors)
        )

    def look(self, images: Float32[Array, "I H W 3"], size: Int32[Array, "2"]) -> Any:
        """Runs every part that has parameters, for initialisation."""
        del size
        said = self.say(images, False)
        return said, self.embed(said.levels, jnp.zeros((len(images), 1, 4)))

    def embed(
        self, levels: Levels, boxes: Float32[Array, "I R 4"]
    ) -> Float32[Array, "I R E"]:
        """Returns embeddings of regions from their pooled features."""
        if self.track_head is None:
            return jnp.zeros((*boxes.shape[:2], 0), jnp.float32)
        return self.track_head(pool_in(boxes, levels, finest=FINEST, side=_TRACK_SIDE))

    def find(self, levels: Levels, size: Int32[Array, "2"]) -> Detections:
        """Detects objects in frames of one size, with masks over the canvas."""
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
                descriptors=appearance.descriptors,
                mask_logits=masks,
            ),
            canvas,
        )

    def describe(self, levels: Levels, boxes: Float32[Array, "T N 4"]) -> Appearance:
        """Returns embeddings, and the mean of the features in boxes.

        Each box reads the level for its size, as in Mask R-CNN.
        """
        descriptors = descriptors_in(boxes, levels, finest=FINEST)
        return Appearance(self.embed(levels, boxes), descriptors)


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model = build_model(settings)
    detector = dense_detector(model, settings)
    loss = functools.partial(
        pair_and_frame_loss, model, settings.loss, settings.model.track_head.positive
    )
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """Builds the detector without a tracker."""
    return dense_detector(build_model(settings), settings)


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    _check(settings)
    dtype = jnp.dtype(settings.compute_dtype)
    width = model.track_head.width
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        detector=build_modules(model, dtype),
        track_head=TrackHead(width, dtype) if width else None,
        priors=model.priors,
        rule=YolactRule(
            test.score, test.nms, _CANDIDATES, test.objects, test.across_classes
        ),
        style=backbones.pixel_style(model.backbone),
    )


def _check(settings: Settings) -> None:
    """Raises ValueError unless there are classes, enough candidates and a loss."""
    test, classes = settings.test, settings.model.num_classes
    check_classes(classes)
    most = _CANDIDATES * (1 if test.across_classes else classes)
    if test.objects > most:
        raise ValueError(
            f"test.objects: expected at most {most}, as NMS has {_CANDIDATES}"
            f" candidates{'' if test.across_classes else ' of each class'}, got"
            f" {test.objects}"
        )
    check_trained(settings.loss.detector, settings.model.track_head.width)


def pair_and_frame_loss(
    model: Model,
    settings: LossSettings,
    least: float,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the detection loss of all frames, plus the track loss of frame pairs.

    Args:
      model: the network.
      settings: `loss`.
      least: IoU with its object above which a region trains the track head.
      variables, batch, rng: see `System.loss`.
    """
    drop_rng, mask_rng = jax.random.split(rng)
    said, stats = _say(model, variables, batch, drop_rng, train=settings.detector)
    terms: dict[str, Array] = {}
    notes: dict[str, Array] = {}
    if settings.detector:
        terms, notes = _frame_terms(settings, said, batch, mask_rng)
    if model.track_head is not None:
        # Not a key used above, which models without a track head use, too.
        roles = draw_roles(jax.random.fold_in(rng, 2), batch.frame_valid)
        found = _find(model, frames_at(said.out, roles.key), said.priors, batch.sizes)

        def embed(levels: Levels, boxes: Float32[Array, "B R 4"], /) -> Array:
            embeds = model.apply(variables, levels, boxes, method=Model.embed)
            return cast(Array, embeds)

        pairs = pair_loss(embed, said.levels, found, batch, roles=roles, least=least)
        terms["track"] = settings.track * pairs
    loss = sum(terms.values(), start=jnp.float32(0.0))
    return loss, LossAux(terms, stats, notes)


def _say(
    model: Model, variables: dict, batch: Batch, rng: PRNGKeyArray, *, train: bool
) -> tuple[NetworkOutput, dict]:
    """Runs the network on all frames, without gradient if frozen; updates its stats."""
    pixels = jax.vmap(functools.partial(normalize, style=model.style))
    images = pixels(batch.images, batch.sizes)
    images = images.reshape(-1, *images.shape[2:])
    if not train:
        said = model.apply(variables, images, False, method=Model.say)
        return jax.lax.stop_gradient(cast(NetworkOutput, said)), {}
    said, updates = model.apply(
        variables,
        images,
        True,
        batch.frame_valid.reshape(-1),
        method=Model.say,
        rngs={"dropout": rng},
        mutable=["batch_stats"],
    )
    return cast(NetworkOutput, said), dict(updates.get("batch_stats", {}))


def _frame_terms(
    settings: LossSettings, said: NetworkOutput, batch: Batch, rng: PRNGKeyArray
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the detector's terms, each frame as a single image, and notes to log."""
    found = multibox_losses(
        rng,
        said.out,
        objects_of(batch),
        image_valid=batch.frame_valid.reshape(-1),
        priors=said.priors,
        coder=CODER,
        rule=PriorRule(
            settings.positive, settings.negative, settings.negatives, settings.masks
        ),
    )
    terms = {
        "box_class": settings.box_class * found.classes,
        "box": settings.box * found.boxes,
        "mask": settings.mask * found.masks,
        "semantic": settings.semantic * found.semantic,
    }
    return terms, {"positives_left_out": found.left_out}


def _find(
    model: Model,
    out: YolactOutput,
    priors: Float32[Array, "P 4"],
    sizes: Int32[Array, "B 2"],
) -> ImageDetections:
    """Detects the objects of one frame per clip, as at test time."""

    def one(out: YolactOutput, size: Int32[Array, "2"]) -> ImageDetections:
        found = find(out, priors, size, rule=model.rule)
        return ImageDetections(clip_boxes(found.boxes, size), found.valid)

    return jax.vmap(one)(out, sizes)
