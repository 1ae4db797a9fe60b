"""MaskTrack R-CNN: Mask R-CNN with a track head that matches detections to tracks.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019. Training uses pairs of frames:
the track head predicts which object of the reference frame a region of the key frame
shows. At test time a tracker (`test.tracker`) links the detections of the frames, the
published one or another; detections do not depend on it. Letters: B clips, M
ground-truth objects, S sampled regions, N objects per frame.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association.track_head import Settings as TrackHeadSettings
from vis_jax.association.track_head import TrackHead
from vis_jax.backbones.fpn import FPN
from vis_jax.detectors import mask_rcnn
from vis_jax.detectors.box_head import BoxHead, BoxOutput, DetectRule
from vis_jax.detectors.conventions import CONVENTIONS
from vis_jax.detectors.frame_pair import Pair, draw_pair
from vis_jax.detectors.mask_head import MaskHead, of_label
from vis_jax.detectors.mask_rcnn import (
    BOX_SIDE,
    RATIOS,
    Levels,
    MaskRCNN,
    TrainRules,
    build_rules,
    train_rules,
)
from vis_jax.detectors.rcnn_losses import (
    mask_losses,
    positives_of,
    rpn_losses,
    sample_regions,
)
from vis_jax.detectors.rcnn_targets import RegionTargets
from vis_jax.detectors.rpn import RPN
from vis_jax.losses.rcnn import region_losses
from vis_jax.ops.padding import zero_padding
from vis_jax.settings import Weight, section
from vis_jax.structures import Batch, Detections, LossAux
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
    TestSettings,
)
from vis_jax.systems.system import Dtype, System, check_classes, weighted
from vis_jax.systems.track_pairs import region_track_loss
from vis_jax.systems.tracked_detector import make_system, region_detector
from vis_jax.typing import Array, Float, Float32


@section
class ModelSettings(mask_rcnn.Settings):
    """`model`."""

    track_head: TrackHeadSettings = TrackHeadSettings()


@section
class LossSettings:
    """`loss`: the weight of each term."""

    rpn_class: Weight = 1.0  # objectness of anchors
    rpn_box: Weight = 1.0  # box of anchors
    box_class: Weight = 1.0  # class of regions
    box: Weight = 1.0  # box of regions
    mask: Weight = 1.0  # mask of regions
    track: Weight = 1.0  # identity in the reference frame, Eq. 2


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class Model(MaskRCNN):
    """Mask R-CNN with a track head that shares the features of the box head."""

    track_head: nn.Module
    num_classes: int
    style: str  # pixel normalisation, see `normalize`

    def embed(self, pooled: Float[Array, "B R S S D"]) -> Float32[Array, "B R E"]:
        """Returns embeddings of regions from their pooled features."""
        return self.track_head(pooled)

    def classify_pooled(self, pooled: Float[Array, "B R S S D"]) -> BoxOutput:
        """Returns class logits and box deltas of regions from their pooled features."""
        return self.box_head(pooled)

    def describe(self, features: Levels, boxes: Float32[Array, "B R 4"]) -> Appearance:
        """Returns appearance features of regions for the trackers."""
        pooled = self.pool(features, boxes, BOX_SIDE)
        descriptors = self.box_head.describe(pooled).astype(jnp.float32)
        length = jnp.linalg.norm(descriptors, axis=-1, keepdims=True)
        return Appearance(self.embed(pooled), descriptors / jnp.maximum(length, 1e-6))

    def look(self, images: Any, size: Any) -> Detections:
        """Detects the objects of images, starting from pixels."""
        return self.find(self.features(images), size)

    def find(self, features: Levels, size: Any) -> Detections:
        """Detects objects in images of one size, with appearance and masks."""
        sizes = jnp.broadcast_to(size[None], (len(features[0]), 2))
        _, proposals = self.propose(features, sizes)
        found = self.detect(features, proposals, sizes)
        # Embeddings come from the final boxes, not from the proposals.
        appearance = self.describe(features, found.boxes)
        logits = jax.vmap(of_label)(self.masks(features, found.boxes), found.labels)
        # Upsampled as probabilities, as in the source; subtracting 0.5 centres them.
        masks = jax.nn.sigmoid(logits) - 0.5
        parts = (zero_padding(x, found.valid) for x in (*appearance, masks))
        return Detections(*found, *parts)


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, rules = build_model(settings), train_rules(settings.model)
    least = settings.model.track_head.positive

    def loss(variables, batch: Batch, rng):
        pair_rng, rng = jax.random.split(rng)
        pair = draw_pair(pair_rng, batch, style=model.style)
        aux = _losses(model, rules, least, variables, pair, batch.sizes, rng)
        return weighted(aux, settings.loss)

    detector = region_detector(model, settings)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """Builds the detector without a tracker."""
    return region_detector(build_model(settings), settings)


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    _check(model, test)
    dtype = jnp.dtype(settings.compute_dtype)
    least_side = CONVENTIONS[model.conventions].least_detection
    rules = build_rules(
        model, DetectRule(test.score, test.nms, least_side, test.objects)
    )
    classes = model.num_classes
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        fpn=FPN(**vars(model.fpn), dtype=dtype),
        rpn=RPN(model.rpn.dim, len(RATIOS), dtype),
        box_head=BoxHead(classes, model.box_head.width, dtype),
        mask_head=MaskHead(classes, model.mask_head.dim, model.mask_head.convs, dtype),
        rules=rules,
        track_head=TrackHead(model.track_head.width, dtype),
        num_classes=classes,
        style=backbones.pixel_style(model.backbone),
    )


def _check(model: ModelSettings, test: TestSettings) -> None:
    """Raises ValueError if classes are unknown or there are too few candidates."""
    classes = model.num_classes
    check_classes(classes)
    most = model.rpn.proposals * classes
    if test.objects > most:
        raise ValueError(
            f"test.objects: expected at most model.rpn.proposals x classes, {most}, got"
            f" {test.objects}"
        )


def _losses(
    model: Model,
    rules: TrainRules,
    least: float,
    variables: dict,
    pair: Pair,
    sizes: Any,
    rng: Any,
) -> LossAux:
    """Computes every unweighted term of the loss, with batch statistics and notes.

    Args:
      least: IoU with the ground truth above which a region trains the track head.
    """
    rpn_rng, roi_rng = jax.random.split(rng)

    def apply(method: Callable, *inputs: Any) -> Any:
        return model.apply(variables, *inputs, method=method)

    found, updates = model.apply(
        variables, pair.images, True, method=Model.features, mutable=["batch_stats"]
    )
    levels = cast(Levels, found)
    count = len(sizes)
    features = tuple(x[:count] for x in levels)
    out, proposals = apply(Model.propose, features, sizes)
    rpn = rpn_losses(
        rpn_rng,
        out,
        pair.truth,
        anchors=model.anchors(features),
        sizes=sizes,
        coder=model.rules.proposal_coder,
        rule=rules.anchors,
    )
    regions, left_out, _ = sample_regions(
        roi_rng,
        proposals.boxes,
        pair.truth,
        valid=proposals.valid,
        num_classes=model.num_classes,
        coder=model.rules.roi_coder,
        rule=rules.regions,
    )
    heads = _head_losses(apply, levels, regions, pair=pair, rules=rules, least=least)
    terms = {"rpn_class": rpn.classes, "rpn_box": rpn.boxes, **heads}
    notes = {"positives_left_out": left_out.sum().astype(jnp.float32)}
    return LossAux(terms, dict(updates.get("batch_stats", {})), notes)


def _head_losses(
    apply: Callable,
    levels: Levels,
    regions: RegionTargets,
    *,
    pair: Pair,
    rules: TrainRules,
    least: float,
) -> dict[str, Float32[Array, ""]]:
    """Computes the terms of the heads on regions of the key frames.

    Args:
      apply: (method of Model, its inputs) -> outputs.
      levels: pyramid of all frames of the pairs.
      regions: sampled regions.
      pair, rules: the frames with their objects, and the sampling rules.
      least: see `region_track_loss`.
    """
    count = len(regions.boxes)
    features = tuple(x[:count] for x in levels)
    others = tuple(x[count:] for x in levels)
    pooled = apply(Model.pool, features, regions.boxes, BOX_SIDE)
    boxes = cast(BoxOutput, apply(Model.classify_pooled, pooled))
    heads = region_losses(
        boxes.class_logits,
        boxes.deltas,
        regions.deltas,
        labels=regions.labels,
        valid=regions.valid,
        beta=1.0,
    )
    positives = positives_of(regions, rules.regions)
    mask_logits = apply(Model.masks, features, positives.boxes)
    reference = apply(Model.pool, others, pair.reference_boxes, BOX_SIDE)
    return {
        "box_class": heads.classes,
        "box": heads.boxes,
        "mask": mask_losses(mask_logits, positives, pair.masks),
        "track": region_track_loss(
            apply(Model.embed, pooled[:, : rules.regions.most_positive]),
            apply(Model.embed, reference),
            positives,
            pair,
            least=least,
        ),
    }
