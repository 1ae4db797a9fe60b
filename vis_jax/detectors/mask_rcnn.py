"""Mask R-CNN with a feature pyramid; every number of boxes is fixed.

He et al., "Mask R-CNN", ICCV 2017; Lin et al., "Feature pyramid networks", CVPR 2017.
Letters: R regions of an image, S side of pooled features.
"""

import functools
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax

from vis_jax import backbones
from vis_jax.backbones import resnet
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.detectors.box_head import BoxOutput, DetectRule, FoundBoxes, detect
from vis_jax.detectors.box_head import Settings as BoxHeadSettings
from vis_jax.detectors.conventions import CONVENTIONS
from vis_jax.detectors.mask_head import Settings as MaskHeadSettings
from vis_jax.detectors.mask_head import of_label
from vis_jax.detectors.rcnn_targets import MatchRule
from vis_jax.detectors.rcnn_targets import Settings as RegionSettings
from vis_jax.detectors.rpn import ProposalRule, Proposals, RPNOutput, propose
from vis_jax.detectors.rpn import Settings as RpnSettings
from vis_jax.ops.anchors import AnchorGrid, make_anchors
from vis_jax.ops.box_coder import ROI, UNIT, BoxCoder
from vis_jax.ops.box_matching import claim_best
from vis_jax.ops.roi_align import (
    Adaptive,
    Convention,
    pyramid_roi_align,
    roi_levels,
)
from vis_jax.settings import Natural, OneOf, section
from vis_jax.typing import Array, Bool, Float, Float32, Int32

STRIDES = (4, 8, 16, 32, 64)  # of the levels that have anchors
RATIOS = (0.5, 1.0, 2.0)  # of the sides of anchors
_ROI_STRIDES = STRIDES[:-1]
_FINEST = 56.0  # pixels; larger regions read coarser levels
BOX_SIDE, MASK_SIDE = 7, 14  # cells of the features of a region

Levels = tuple[Float[Array, "B _ _ D"], ...]


@section
class Settings:
    """`model` of a Mask R-CNN."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: backbones.Settings = resnet.Settings(norm="frozen_stats")
    fpn: FpnSettings = FpnSettings()
    rpn: RpnSettings = RpnSettings()
    regions: RegionSettings = RegionSettings()
    box_head: BoxHeadSettings = BoxHeadSettings()
    mask_head: MaskHeadSettings = MaskHeadSettings()
    # How regions are read and boxes made, in training and at test: as in the library
    # that the detector's weights come from.
    conventions: Annotated[str, OneOf(CONVENTIONS)] = "mmdetection"

    def __post_init__(self):
        if self.regions.sampled > self.rpn.proposals:
            raise ValueError(
                "regions.sampled: expected at most model.rpn.proposals,"
                f" {self.rpn.proposals}, got {self.regions.sampled}"
            )


class Rules(NamedTuple):
    """What turns the outputs of the heads into boxes; see the types."""

    anchors: AnchorGrid
    proposal_coder: BoxCoder
    proposals: ProposalRule
    roi_convention: Convention
    roi_samples: int | Adaptive  # points of RoIAlign per axis and cell
    roi_coder: BoxCoder
    detections: DetectRule


def build_rules(settings: Settings, detections: DetectRule) -> Rules:
    """The rules of a config.

    Args:
      settings: `model` of it.
      detections: how regions become objects.
    """
    conventions = CONVENTIONS[settings.conventions]
    return Rules(
        anchors=AnchorGrid(
            sides=tuple(settings.rpn.scale * stride for stride in STRIDES),
            ratios=RATIOS,
            strides=tuple((stride, stride) for stride in STRIDES),
            centre=conventions.centre,
            rounded=conventions.rounded,
        ),
        proposal_coder=BoxCoder(UNIT, conventions.log_range),
        proposals=ProposalRule(
            before=settings.rpn.proposals,
            size=settings.rpn.proposals,
            iou_threshold=0.7,
            least_side=conventions.least_proposal,
        ),
        roi_convention=conventions.roi,
        roi_samples=conventions.samples,
        roi_coder=BoxCoder(ROI, conventions.log_range),
        detections=detections,
    )


class TrainRules(NamedTuple):
    """What is trained on."""

    anchors: MatchRule
    regions: MatchRule


def train_rules(settings: Settings) -> TrainRules:
    """The rules of a config; `settings` are those of its `model`."""
    sampled, regions = settings.rpn.sampled, settings.regions
    return TrainRules(
        MatchRule(0.7, 0.3, claim_best, 0.3, sampled, sampled // 2),
        MatchRule(0.5, 0.5, claim_best, 0.5, regions.sampled, regions.positives),
    )


class MaskRCNN(nn.Module):
    """Backbone, pyramid and the three heads.

    The modules are fields, so that a system can share or replace any of them.

    Attributes:
      rules: how boxes are made.
    """

    backbone: nn.Module
    fpn: nn.Module
    rpn: nn.Module
    box_head: nn.Module
    mask_head: nn.Module
    rules: Rules

    def features(self, images: Float[Array, "B H W 3"], train: bool = False) -> Levels:
        """Levels 'p2' .. 'p6' of normalised images, sides multiples of 32 pixels.

        Args:
          train: of the backbone; with batch norm, 'batch_stats' has to be mutable.
        """
        return self.levels(self.backbone(images, train))

    def levels(self, features: dict[str, Float[Array, "B _ _ _"]]) -> Levels:
        """Levels 'p2' .. 'p6' of the features of the backbone."""
        levels = self.fpn(features)
        return tuple(levels[name] for name in sorted(levels))

    def propose(
        self, features: Levels, sizes: Int32[Array, "B 2"]
    ) -> tuple[RPNOutput, Proposals]:
        """What the region proposal network says, and the boxes made of it.

        Args:
          sizes: height and width of each image's content in pixels.
        """
        out = self.rpn(features)
        counts = tuple(
            x.shape[1] * x.shape[2] * len(self.rules.anchors.ratios) for x in features
        )
        if self.rules.proposals.size > sum(counts):
            raise ValueError(
                f"model.rpn.proposals: expected at most {sum(counts)}, the anchors of a"
                f" frame, got {self.rules.proposals.size}"
            )
        one = functools.partial(
            propose,
            anchors=self.anchors(features),
            counts=counts,
            coder=self.rules.proposal_coder,
            rule=self.rules.proposals,
        )

        def propose_one(
            logits: Float32[Array, "A"],
            deltas: Float32[Array, "A 4"],
            size: Int32[Array, "2"],
        ) -> Proposals:
            return one(logits, deltas, image_size=size)

        return out, jax.vmap(propose_one)(out.objectness_logits, out.deltas, sizes)

    def anchors(self, features: Levels) -> Float32[Array, "A 4"]:
        """Anchors of all levels, in pixels."""
        return make_anchors(
            [(x.shape[1], x.shape[2]) for x in features], self.rules.anchors
        )

    def pool(
        self, features: Levels, boxes: Float32[Array, "B R 4"], side: int
    ) -> Float[Array, "B R S S D"]:
        """Features of regions, each from the level of its size."""

        def one(
            features: tuple[Float[Array, "_ _ D"], ...], boxes: Float32[Array, "R 4"]
        ) -> Float[Array, "R S S D"]:
            return pyramid_roi_align(
                features,
                boxes,
                roi_levels(boxes, levels=len(_ROI_STRIDES), finest=_FINEST),
                scales=tuple(1 / stride for stride in _ROI_STRIDES),
                size=(side, side),
                samples=self.rules.roi_samples,
                convention=self.rules.roi_convention,
            )

        return jax.vmap(one)(features[: len(_ROI_STRIDES)], boxes)

    def classify(self, features: Levels, boxes: Float32[Array, "B R 4"]) -> BoxOutput:
        """Class logits and deltas of regions."""
        return self.box_head(self.pool(features, boxes, BOX_SIDE))

    def detect(
        self, features: Levels, proposals: Proposals, sizes: Int32[Array, "B 2"]
    ) -> FoundBoxes:
        """Objects among the proposals of each image."""
        out = self.classify(features, proposals.boxes)

        def one(
            logits: Float32[Array, "R K1"],
            deltas: Float32[Array, "R K 4"],
            boxes: Float32[Array, "R 4"],
            valid: Bool[Array, "R"],
            size: Int32[Array, "2"],
        ) -> FoundBoxes:
            return detect(
                logits,
                deltas,
                boxes,
                valid=valid,
                image_size=size,
                coder=self.rules.roi_coder,
                rule=self.rules.detections,
            )

        return jax.vmap(one)(*out, proposals.boxes, proposals.valid, sizes)

    def masks(
        self, features: Levels, boxes: Float32[Array, "B R 4"]
    ) -> Float32[Array, "B R h w K"]:
        """Mask logits of regions for every class, over the region's box."""
        pooled = self.pool(features, boxes, MASK_SIDE)
        logits = self.mask_head(pooled.reshape(-1, *pooled.shape[2:]))
        return logits.reshape(*boxes.shape[:2], *logits.shape[1:])

    def __call__(
        self, images: Float[Array, "B H W 3"], sizes: Int32[Array, "B 2"]
    ) -> tuple[FoundBoxes, Float32[Array, "B N h w"]]:
        """Objects of images, and the mask logits of each over its box.

        Args:
          images: normalised; sides are multiples of 32 pixels.
          sizes: height and width of each image's content in pixels.
        """
        features = self.features(images)
        _, proposals = self.propose(features, sizes)
        found = self.detect(features, proposals, sizes)
        logits = self.masks(features, found.boxes)
        return found, jax.vmap(of_label)(logits, found.labels)
