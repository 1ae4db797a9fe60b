"""Hybrid Task Cascade on videos: objects of single frames, which a tracker links.

Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019. With the track
head of MaskTrack R-CNN, which pairs of frames train, it is the "MaskTrack R-CNN*" of
Bertasius and Torresani, "Classifying, segmenting, and tracking object instances in
video with mask propagation", CVPR 2020, tables 2 and 3. Letters: B clips, R regions, E
numbers of an embedding.
"""

from typing import Annotated, cast

import jax
import jax.numpy as jnp

from vis_jax.association.track_head import OptionalSettings as TrackHeadSettings
from vis_jax.association.track_head import TrackHead
from vis_jax.detectors import cascade_settings
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import Cascade, build_cascade
from vis_jax.detectors.cascade_losses import (
    TrainRules,
    TrueObjects,
    detector_losses,
    train_rules,
)
from vis_jax.detectors.frame_pair import Pair, draw_pair
from vis_jax.detectors.two_stage import BOX_SIDE, MASK_SIDE, Levels
from vis_jax.settings import OneOf, Weight, section
from vis_jax.structures import Batch, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import Dtype, System, check_classes
from vis_jax.systems.track_pairs import region_track_loss
from vis_jax.systems.tracked_detector import Shapes, make_detector, make_system
from vis_jax.trackers import TRACKERS
from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray


@section
class ModelSettings(cascade_settings.Settings):
    """`model`."""

    track_head: TrackHeadSettings = TrackHeadSettings()


@section
class LossSettings:
    """`loss`: the weight of every term; `model.stages.weight` has those of stages."""

    rpn_class: Weight = 1.0  # is an anchor an object
    rpn_box: Weight = 1.0  # where it is
    box_class: Weight = 1.0  # which class a region has
    box: Weight = 1.0  # where it is
    mask: Weight = 1.0  # which pixels it has
    semantic: Weight = 0.1  # what a cell shows, if there is a semantic branch
    track: Weight = 1.0  # which object of another frame a region is, if there is a head


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # what links detections


@section
class Settings:
    """All that this system reads of a config."""

    compute_dtype: Dtype = "float32"  # of the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


def build(settings: Settings) -> System:
    """The system.

    Raises:
      ValueError: settings do not fit each other.
    """
    model = build_model(settings)
    rules, weights = train_rules(settings.model), vars(settings.loss)
    least = settings.model.track_head.positive

    def loss(
        variables: dict, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float32[Array, ""], LossAux]:
        pair_rng, rng = jax.random.split(rng)
        pair = draw_pair(pair_rng, batch, style=model.style)
        aux = _losses(model, rules, least, variables, pair, batch.sizes, rng)
        terms = {name: weights[name] * value for name, value in aux.terms.items()}
        total = sum(terms.values(), start=jnp.float32(0.0))
        return total, aux._replace(terms=terms)

    detector = _detector(model, settings)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """What finds the objects, without a tracker."""
    return _detector(build_model(settings), settings)


def build_model(settings: Settings) -> Cascade:
    """The network.

    Raises:
      ValueError: settings do not fit each other.
    """
    _check(settings)
    model, test = settings.model, settings.test
    dtype = jnp.dtype(settings.compute_dtype)
    width = model.track_head.width
    return build_cascade(
        model,
        DetectRule(test.score, test.nms, 0.0, test.objects),
        dtype,
        TrackHead(width, dtype) if width else None,
    )


def _check(settings: Settings) -> None:
    """Raises ValueError unless objects and semantic classes can be as many as asked."""
    model, test = settings.model, settings.test
    classes = model.num_classes
    check_classes(classes)
    most = min(model.rpn.proposals * classes, cascade_settings.CANDIDATES)
    if test.objects > most:
        raise ValueError(
            f"test.objects: expected at most {most}, what suppression looks at, got"
            f" {test.objects}"
        )
    semantic = model.semantic
    trained = semantic.enabled and settings.loss.semantic > 0
    if trained and semantic.classes not in (0, classes + 1):
        raise ValueError(
            f"model.semantic.classes: expected 0 or {classes + 1}, the classes and the"
            f" background, to be trained (loss.semantic), got {semantic.classes}"
        )


def _losses(
    model: Cascade,
    rules: TrainRules,
    least: float,
    variables: dict,
    pair: Pair,
    sizes: Int32[Array, "B 2"],
    rng: PRNGKeyArray,
) -> LossAux:
    """Every term of the loss, not weighted, and what else comes with it.

    Args:
      model, variables: the network.
      rules: what is trained on.
      least: IoU with the truth from which a region trains the track head.
      pair: the key frames train the detector, both the track head, if there is one.
      sizes: height and width of each frame's content in pixels.
      rng: key of the choice of anchors and regions.
    """
    count, tracked = len(sizes), model.track_head is not None
    images = pair.images if tracked else pair.images[:count]
    found, updates = model.apply(
        variables, images, True, method=Cascade.pyramid, mutable=["batch_stats"]
    )
    levels = cast(Levels, found)
    bound = model.bind(variables)
    features = bound.read(tuple(x[:count] for x in levels))
    objects = TrueObjects(pair.truth, pair.masks, sizes)
    losses = detector_losses(rng, bound, features, objects, rules)
    terms = dict(losses.terms)
    if tracked:
        others = tuple(x[count:] for x in levels)
        terms["track"] = region_track_loss(
            _embed(bound, features.levels, losses.positives.boxes),
            _embed(bound, others, pair.reference_boxes),
            losses.positives,
            pair,
            least=least,
        )
    notes = {"positives_left_out": losses.left_out}
    return LossAux(terms, dict(updates.get("batch_stats", {})), notes)


def _embed(
    model: Cascade, levels: Levels, boxes: Float32[Array, "B R 4"]
) -> Float32[Array, "B R E"]:
    """What regions are compared by: from the pyramid alone, as at test time."""
    assert model.track_head is not None
    return model.track_head(model.pool(levels, boxes, BOX_SIDE))


def _detector(model: Cascade, settings: Settings) -> Detector:
    """What finds objects, as functions of variables."""
    shapes = Shapes(
        objects=settings.test.objects,
        classes=settings.model.num_classes,
        embeds=settings.model.track_head.width,
        looks=settings.model.box_head.width,
        mask=(2 * MASK_SIDE, 2 * MASK_SIDE),
    )
    return make_detector(model, shapes, model.style)
