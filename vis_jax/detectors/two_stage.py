"""Shared parts of two-stage detectors: pyramid, proposals and RoI features.

Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks", CVPR
2017. Letters: R regions per image, S side of pooled features.
"""

import functools
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax

from vis_jax.backbones.fpn import FPN, Levels, levels_of
from vis_jax.detectors.rpn import ProposalRule, Proposals, RPNOutput, propose
from vis_jax.ops.anchors import AnchorGrid, make_anchors
from vis_jax.ops.box_coder import BoxCoder
from vis_jax.ops.roi_align import (
    Adaptive,
    Convention,
    pyramid_roi_align,
    roi_levels,
)
from vis_jax.typing import Array, Float, Float32, Int32

STRIDES = (4, 8, 16, 32, 64)  # strides of the levels with anchors
RATIOS = (0.5, 1.0, 2.0)  # ratios of the anchor sides
_ROI_STRIDES = STRIDES[:-1]
_FINEST = 56.0  # pixels; regions of up to twice this side read the finest level
BOX_SIDE, MASK_SIDE = 7, 14  # cells per axis of RoI features


@runtime_checkable
class RegionRules(Protocol):
    """Rules for proposals and RoI features; see the types."""

    @property
    def anchors(self) -> AnchorGrid:
        """Anchors of all levels."""
        ...

    @property
    def proposal_coder(self) -> BoxCoder:
        """Box coder of anchor deltas."""
        ...

    @property
    def proposals(self) -> ProposalRule:
        """Rule that turns anchors into proposals."""
        ...

    @property
    def roi_convention(self) -> Convention:
        """Box alignment on a feature map."""
        ...

    @property
    def roi_samples(self) -> int | Adaptive:
        """RoIAlign points per axis and cell."""
        ...


class TwoStage(nn.Module):
    """Backbone, pyramid and region proposals.

    Modules are fields, so that a system can share or replace any of them.

    Attributes:
      rules: turn head outputs into boxes.
    """

    backbone: nn.Module
    fpn: FPN
    rpn: nn.Module
    rules: RegionRules

    def levels(self, features: dict[str, Float[Array, "B _ _ _"]]) -> Levels:
        """Returns levels 'p2' .. 'p6' from backbone features."""
        return levels_of(self.fpn(features))

    def propose(
        self, features: Levels, sizes: Int32[Array, "B 2"]
    ) -> tuple[RPNOutput, Proposals]:
        """Runs the region proposal network; returns its output and the proposals.

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
        """Returns the anchors of all levels, in pixels."""
        return make_anchors(
            [(x.shape[1], x.shape[2]) for x in features], self.rules.anchors
        )

    def pool(
        self, features: Levels, boxes: Float32[Array, "B R 4"], side: int
    ) -> Float[Array, "B R S S D"]:
        """Returns RoI features, each from the level for its size."""

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
