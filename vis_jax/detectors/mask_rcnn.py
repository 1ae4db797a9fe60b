"""Mask R-CNN with a feature pyramid and fixed numbers of boxes.

He et al., "Mask R-CNN", ICCV 2017; Lin et al., "Feature pyramid networks", CVPR 2017.
Letters: R regions per image, S side of pooled features.
"""

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
from vis_jax.detectors.rpn import ProposalRule, Proposals
from vis_jax.detectors.rpn import Settings as RpnSettings
from vis_jax.detectors.two_stage import (
    BOX_SIDE,
    MASK_SIDE,
    RATIOS,
    STRIDES,
    Levels,
    TwoStage,
)
from vis_jax.ops.anchors import AnchorGrid
from vis_jax.ops.box_coder import ROI, UNIT, BoxCoder
from vis_jax.ops.box_matching import claim_best
from vis_jax.ops.roi_align import Adaptive, Convention
from vis_jax.settings import Natural, OneOf, section
from vis_jax.typing import Array, Bool, Float, Float32, Int32


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
    # RoI and box conventions, in training and at test time: those of the library that
    # the detector's weights come from.
    conventions: Annotated[str, OneOf(CONVENTIONS)] = "mmdetection"

    def __post_init__(self) -> None:
        if self.regions.sampled > self.rpn.proposals:
            raise ValueError(
                "regions.sampled: expected at most model.rpn.proposals,"
                f" {self.rpn.proposals}, got {self.regions.sampled}"
            )


class DetectionRules(NamedTuple):
    """Rules that turn head outputs into boxes; see the types."""

    anchors: AnchorGrid
    proposal_coder: BoxCoder
    proposals: ProposalRule
    roi_convention: Convention
    roi_samples: int | Adaptive  # RoIAlign points per axis and cell
    roi_coder: BoxCoder
    detections: DetectRule


def build_rules(settings: Settings, detections: DetectRule) -> DetectionRules:
    """Returns the rules of a config.

    Args:
      settings: `model` of the config.
      detections: turns regions into objects.
    """
    conventions = CONVENTIONS[settings.conventions]
    return DetectionRules(
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
    """Rules for sampling training examples."""

    anchors: MatchRule
    regions: MatchRule


def train_rules(settings: Settings) -> TrainRules:
    """Returns the rules of a config; `settings` are those of its `model`."""
    sampled, regions = settings.rpn.sampled, settings.regions
    return TrainRules(
        MatchRule(0.7, 0.3, claim_best, 0.3, sampled, sampled // 2),
        MatchRule(0.5, 0.5, claim_best, 0.5, regions.sampled, regions.positives),
    )


class MaskRCNN(TwoStage):
    """Backbone, pyramid and the three heads.

    Attributes:
      rules: turn head outputs into boxes.
    """

    box_head: nn.Module
    mask_head: nn.Module
    rules: DetectionRules

    def features(self, images: Float[Array, "B H W 3"], train: bool = False) -> Levels:
        """Returns levels 'p2' .. 'p6'; sides of images are multiples of 32 pixels.

        Args:
          train: train mode of the backbone; with batch norm, 'batch_stats' must be
            mutable.
        """
        return self.levels(self.backbone(images, train))

    def classify(self, features: Levels, boxes: Float32[Array, "B R 4"]) -> BoxOutput:
        """Returns class logits and deltas of regions."""
        return self.box_head(self.pool(features, boxes, BOX_SIDE))

    def detect(
        self, features: Levels, proposals: Proposals, sizes: Int32[Array, "B 2"]
    ) -> FoundBoxes:
        """Detects objects among the proposals of each image."""
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
        """Returns mask logits of regions for every class, over each region's box."""
        pooled = self.pool(features, boxes, MASK_SIDE)
        logits = self.mask_head(pooled.reshape(-1, *pooled.shape[2:]))
        return logits.reshape(*boxes.shape[:2], *logits.shape[1:])

    def __call__(
        self, images: Float[Array, "B H W 3"], sizes: Int32[Array, "B 2"]
    ) -> tuple[FoundBoxes, Float32[Array, "B N h w"]]:
        """Detects the objects of images; returns mask logits of each over its box.

        Args:
          images: normalised; sides are multiples of 32 pixels.
          sizes: height and width of each image's content in pixels.
        """
        features = self.features(images)
        _, proposals = self.propose(features, sizes)
        found = self.detect(features, proposals, sizes)
        logits = self.masks(features, found.boxes)
        return found, jax.vmap(of_label)(logits, found.labels)
