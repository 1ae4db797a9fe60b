"""Settings of Hybrid Task Cascade, and the rules that follow from them."""

from typing import Annotated, NamedTuple

from vis_jax.detectors import mask_rcnn, semantic_head
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.conventions import CONVENTIONS
from vis_jax.detectors.rpn import ProposalRule
from vis_jax.ops.anchors import AnchorGrid
from vis_jax.ops.box_coder import BoxCoder
from vis_jax.ops.roi_align import Adaptive, Convention
from vis_jax.settings import Natural, OneOf, Range, Share, Weight, section

# Most (box, class) pairs that enter NMS. Deviation: mmdetection uses all above the
# threshold, which are more for a threshold as low as COCO's.
CANDIDATES = 1000

_Positive = Annotated[float, Range(above=0)]


@section
class StageSettings:
    """`model.stages`: one value per stage of the cascade."""

    # Least IoU of a positive region with the ground truth, per stage.
    iou: tuple[Share, ...] = (0.5, 0.6, 0.7)
    # Standard deviations of the deltas of centres and of sides; see `BoxCoder`.
    centre_std: tuple[_Positive, ...] = (0.1, 0.05, 0.033)
    side_std: tuple[_Positive, ...] = (0.2, 0.1, 0.067)
    # Weights of a stage's losses, on top of those in `loss`.
    weight: tuple[Weight, ...] = (1.0, 0.5, 0.25)

    def __post_init__(self) -> None:
        count = len(self.iou)
        if not count:
            raise ValueError("iou: expected at least one stage, got ()")
        for name in ("centre_std", "side_std", "weight"):
            values = getattr(self, name)
            if len(values) != count:
                raise ValueError(
                    f"{name}: expected {count} numbers, one for each stage as in iou,"
                    f" got {values}"
                )


@section
class Settings(mask_rcnn.Settings):
    """`model` of a Hybrid Task Cascade."""

    stages: StageSettings = StageSettings()
    semantic: semantic_head.Settings = semantic_head.Settings()
    # mmdetection2 is that of the published weights, whose names are newer than 1.x.
    conventions: Annotated[str, OneOf(CONVENTIONS)] = "mmdetection2"
    # RoIAlign points per axis and cell; 0 = as in the conventions, which is many times
    # as slow if that is one point per map cell.
    roi_samples: Natural = 2


class CascadeRules(NamedTuple):
    """Rules that turn head outputs into boxes; see the types.

    Attributes:
      roi_samples: points of RoIAlign per axis and cell.
      roi_coders: box coders of the deltas of each stage.
      candidates: most (box, class) pairs that enter NMS.
    """

    anchors: AnchorGrid
    proposal_coder: BoxCoder
    proposals: ProposalRule
    roi_convention: Convention
    roi_samples: int | Adaptive
    roi_coders: tuple[BoxCoder, ...]
    detections: DetectRule
    candidates: int


def build_rules(settings: Settings, detections: DetectRule) -> CascadeRules:
    """Returns the rules of a config.

    Args:
      settings: `model` of the config.
      detections: turns regions into objects.
    """
    rules = mask_rcnn.build_rules(settings, detections)
    stages = settings.stages
    return CascadeRules(
        anchors=rules.anchors,
        proposal_coder=rules.proposal_coder,
        proposals=rules.proposals,
        roi_convention=rules.roi_convention,
        roi_samples=settings.roi_samples or rules.roi_samples,
        roi_coders=tuple(
            BoxCoder((centre, centre, side, side), rules.roi_coder.log_range)
            for centre, side in zip(stages.centre_std, stages.side_std, strict=True)
        ),
        detections=detections,
        candidates=CANDIDATES,
    )
