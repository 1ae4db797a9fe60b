"""Losses of Hybrid Task Cascade: each stage trains on boxes of the previous one.

Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019, section 3.1:
boxes and masks are interleaved. The box head of a stage trains on regions sampled from
its input boxes, then refines them; the regions of its mask head are sampled anew from
the refined boxes, which are also the input of the next stage. Letters: B images, R
regions, S sampled regions, M ground-truth objects, K classes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.detectors.cascade import Cascade, CascadeFeatures, StageOutput
from vis_jax.detectors.cascade_settings import Settings
from vis_jax.detectors.rcnn_losses import (
    mask_losses,
    positives_of,
    rpn_losses,
    sample_regions,
)
from vis_jax.detectors.rcnn_targets import (
    ImageTruth,
    MatchRule,
    RegionTargets,
    SampledRegions,
)
from vis_jax.detectors.semantic_head import semantic_labels, semantic_loss
from vis_jax.losses.rcnn import region_losses
from vis_jax.ops.box_coder import BoxCoder
from vis_jax.ops.box_matching import claim_best
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

_BETA = 1.0  # for the smooth L1 loss of regions


class CascadeTrainRules(NamedTuple):
    """Rules for sampling training examples, and the weight of each stage."""

    anchors: MatchRule
    regions: tuple[MatchRule, ...]  # one per stage
    weights: tuple[float, ...]  # one per stage


def train_rules(settings: Settings) -> CascadeTrainRules:
    """Returns the rules of a config; `settings` are those of its `model`."""
    anchors, regions = settings.rpn.sampled, settings.regions
    return CascadeTrainRules(
        MatchRule(0.7, 0.3, claim_best, 0.3, anchors, anchors // 2),
        tuple(
            MatchRule(iou, iou, claim_best, iou, regions.sampled, regions.positives)
            for iou in settings.stages.iou
        ),
        settings.stages.weight,
    )


class TrueObjects(NamedTuple):
    """Ground truth of images."""

    truth: ImageTruth  # leading axis B
    masks: Bool[Array, "B M H W"]
    sizes: Int32[Array, "B 2"]  # height and width of the content in pixels


@runtime_checkable
class StageHeads(Protocol):
    """The stages of a cascade; see `detectors.cascade.Cascade`."""

    def classify(
        self, stage: int, features: Any, boxes: Float32[Array, "B R 4"]
    ) -> StageOutput:
        """Returns class logits and deltas of regions."""
        ...

    def refine(
        self,
        stage: int,
        deltas: Float32[Array, "B R 4"],
        boxes: Float32[Array, "B R 4"],
        sizes: Int32[Array, "B 2"],
    ) -> Float32[Array, "B R 4"]:
        """Returns boxes refined by deltas, clipped to the images."""
        ...

    def mask_logits(
        self, stage: int, features: Any, boxes: Float32[Array, "B R 4"]
    ) -> Float32[Array, "B R h w K"]:
        """Returns mask logits of regions for every class."""
        ...


class Boxes(NamedTuple):
    """Input boxes of a stage."""

    boxes: Float32[Array, "B R 4"]  # in pixels
    valid: Bool[Array, "B R"]


class StageLosses(NamedTuple):
    """Unweighted losses of the stages."""

    classes: Float32[Array, "*stages"]
    boxes: Float32[Array, "*stages"]
    masks: Float32[Array, "*stages"]


class StageResult(NamedTuple):
    """Losses of one stage, or of all."""

    losses: StageLosses
    moved: Boxes  # refined by the (last) stage, without ground-truth boxes or gradient
    positives: RegionTargets  # regions of the (last) mask head
    left_out: Float32[Array, ""]  # positive regions beyond `MatchRule.most_positive`


def cascade_losses(
    rng: PRNGKeyArray,
    heads: StageHeads,
    features: Any,
    proposals: Boxes,
    objects: TrueObjects,
    *,
    coders: tuple[BoxCoder, ...],
    rules: tuple[MatchRule, ...],
    num_classes: int,
) -> StageResult:
    """Returns the losses of the box and mask heads of all stages.

    Gradients flow through RoI features and from a mask head into earlier ones, but not
    through boxes.

    Args:
      rng: key for sampling regions.
      heads: the stages.
      features: features of the images, input of `heads`.
      proposals: input boxes of the first stage.
      objects: ground truth of the images.
      coders: box coders of the deltas of each stage.
      rules: matching and sampling per stage, the same for mask and box head.
      num_classes: K.
    """
    results, boxes = [], proposals
    for stage, key in enumerate(jax.random.split(rng, len(rules))):
        sample = functools.partial(
            sample_regions,
            truth=objects.truth,
            num_classes=num_classes,
            coder=coders[stage],
            rule=rules[stage],
        )
        found = _stage_losses(
            key,
            heads,
            features,
            boxes,
            objects,
            stage=stage,
            sample=sample,
            rule=rules[stage],
        )
        results.append(found)
        boxes = found.moved
    losses = jax.tree.map(lambda *x: jnp.stack(x), *(x.losses for x in results))
    left_out = jnp.stack([x.left_out for x in results]).sum()
    return results[-1]._replace(losses=losses, left_out=left_out)


def _stage_losses(
    rng: PRNGKeyArray,
    heads: StageHeads,
    features: Any,
    before: Boxes,
    objects: TrueObjects,
    *,
    stage: int,
    sample: Callable[..., SampledRegions],
    rule: MatchRule,
) -> StageResult:
    """Returns the losses of one stage.

    Args:
      rng: key for sampling regions.
      heads, features, objects: see `cascade_losses`.
      before: input boxes of the stage.
      stage: 0, 1, ..
      sample: `sample_regions` of the stage.
      rule: rule of the stage.
    """
    box_rng, mask_rng = jax.random.split(rng)
    regions, left_out, is_truth = sample(box_rng, before.boxes, valid=before.valid)
    out = heads.classify(stage, features, regions.boxes)
    losses = region_losses(
        out.class_logits,
        out.deltas[:, :, None],
        regions.deltas,
        labels=regions.labels,
        valid=regions.valid,
        beta=_BETA,
    )
    deltas = jax.lax.stop_gradient(out.deltas)
    moved = Boxes(
        heads.refine(stage, deltas, regions.boxes, objects.sizes),
        # Ground-truth boxes are added to the samples anyway; skip them here.
        regions.valid & ~is_truth,
    )
    again = sample(mask_rng, moved.boxes, valid=moved.valid)
    positives = positives_of(again.targets, rule)
    logits = heads.mask_logits(stage, features, positives.boxes)
    masks = mask_losses(logits, positives, objects.masks)
    left = (left_out + again.left_out).sum().astype(jnp.float32)
    return StageResult(StageLosses(*losses, masks), moved, positives, left)


def stage_terms(
    losses: StageLosses, weights: tuple[float, ...]
) -> dict[str, Float32[Array, ""]]:
    """Sums over stages; a stage's weight applies to its three losses."""
    names = ("box_class", "box", "mask")
    by_stage = jnp.array(weights, jnp.float32)
    return {name: by_stage @ x for name, x in zip(names, losses, strict=True)}


class DetectorLosses(NamedTuple):
    """Losses of a cascade on images.

    Attributes:
      terms: by the names in `LossSettings`; only stage weights are applied.
      positives: regions of the last mask head, refined by the last box head, and
        ground-truth boxes.
      left_out: positive regions of all stages that were not sampled.
    """

    terms: dict[str, Float32[Array, ""]]
    positives: RegionTargets
    left_out: Float32[Array, ""]


def detector_losses(
    rng: PRNGKeyArray,
    model: Cascade,
    features: CascadeFeatures,
    objects: TrueObjects,
    rules: CascadeTrainRules,
) -> DetectorLosses:
    """Returns the losses of proposals, all stages and the semantic branch.

    Args:
      rng: key for sampling anchors and regions.
      model: bound to its variables.
      features: features of the images.
      objects: ground truth.
      rules: sampling rules.
    """
    rpn_rng, stages_rng = jax.random.split(rng)
    out, proposals = model.propose(features.levels, objects.sizes)
    rpn = rpn_losses(
        rpn_rng,
        out,
        objects.truth,
        anchors=model.anchors(features.levels),
        sizes=objects.sizes,
        coder=model.rules.proposal_coder,
        rule=rules.anchors,
    )
    stages = cascade_losses(
        stages_rng,
        model,
        features,
        Boxes(proposals.boxes, proposals.valid),
        objects,
        coders=model.rules.roi_coders,
        rules=rules.regions,
        num_classes=model.num_classes,
    )
    of_stages = stage_terms(stages.losses, rules.weights)
    terms = {"rpn_class": rpn.classes, "rpn_box": rpn.boxes, **of_stages}
    if features.semantic_logits is not None:
        terms["semantic"] = _semantic_loss(
            features.semantic_logits, objects, model.num_classes
        )
    return DetectorLosses(terms, stages.positives, stages.left_out)


def _semantic_loss(
    logits: Float32[Array, "B h w S"], objects: TrueObjects, num_classes: int
) -> Float32[Array, ""]:
    """Returns the semantic loss on labels drawn from each image's objects."""

    def one(
        masks: Bool[Array, "M H W"], truth: ImageTruth, size: Int32[Array, "2"]
    ) -> Int32[Array, "h w"]:
        return semantic_labels(
            masks, truth.labels, truth.valid, size=size, num_classes=num_classes
        )

    labels = jax.vmap(one)(objects.masks, objects.truth, objects.sizes)
    return semantic_loss(logits, labels)
