"""Weights of MaskTrack R-CNN, and of the mmdetection 1.x Mask R-CNN it starts from.

Both have the background first, with a box and mask of its own; the models here have it
last, with class logits only. Without a tracking head in the file it is reinitialised,
and so are class layers for different classes: nothing remains of the 80 COCO classes.
"""

from collections.abc import Iterable

from vis_jax.converters.mask_rcnn import TORCHVISION, roi_kernel
from vis_jax.converters.resnet import TORCHVISION as RESNET
from vis_jax.converters.rules import NameRule, Rename
from vis_jax.converters.swin import linear_rule
from vis_jax.converters.transforms import same

TRACK_HEAD = r"params/track_head/.*"

RULES = [
    *TORCHVISION,
    NameRule(
        r"track_head\.fcs\.0\.weight", (("params/track_head/fc1/kernel", roi_kernel),)
    ),
    NameRule(r"track_head\.fcs\.0\.bias", (("params/track_head/fc1/bias", same),)),
    *linear_rule(r"track_head\.fcs\.1", "track_head/fc2"),
]

_LAYERS = {
    **{
        rf"neck\.{old}_convs\.{index}\.conv": f"backbone.fpn_{new}{index + 2}"
        for old, new in (("lateral", "lateral"), ("fpn", "output"))
        for index in range(4)
    },
    r"rpn_head\.rpn_conv": "proposal_generator.rpn_head.conv",
    r"rpn_head\.rpn_cls": "proposal_generator.rpn_head.objectness_logits",
    r"rpn_head\.rpn_reg": "proposal_generator.rpn_head.anchor_deltas",
    r"bbox_head\.shared_fcs\.0": "roi_heads.box_head.fc1",
    r"bbox_head\.shared_fcs\.1": "roi_heads.box_head.fc2",
    r"bbox_head\.fc_cls": "roi_heads.box_predictor.cls_score",
    r"bbox_head\.fc_reg": "roi_heads.box_predictor.bbox_pred",
    **{
        rf"mask_head\.convs\.{index}\.conv": f"roi_heads.mask_head.mask_fcn{index + 1}"
        for index in range(4)
    },
    r"mask_head\.upsample": "roi_heads.mask_head.deconv",
    r"mask_head\.conv_logits": "roi_heads.mask_head.predictor",
}

# Maps mmdetection 1.x names to detectron2's.
NAMES = [
    *[
        Rename(
            rf"backbone\.{rule.source}",
            rule.target.replace("backbone.", "backbone.bottom_up.", 1),
        )
        for rule in RESNET
    ],
    *[Rename(rf"{old}\.(weight|bias)", rf"{new}.\1") for old, new in _LAYERS.items()],
]

# Name prefixes found only in files of other models.
_OTHERS = {
    "track_head.fc.": "the first release of MaskTrack R-CNN, whose tracking head has"
    " one layer; a model with two replaced it on 2019-08-07",
    "detector.": "mmtracking's MaskTrack R-CNN, another model: the background is its"
    " last class, and its tracking head has a ReLU after both layers",
    "roi_head.": "mmdetection 2.0 or later, where the background is the last class",
}


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns regexes of the paths to reinitialise: the tracking head if it is missing.

    Raises:
      ValueError: a name belongs to another model.
    """
    names = tuple(names)
    for beginning, model in _OTHERS.items():
        found = next((name for name in names if name.startswith(beginning)), None)
        if found is not None:
            raise ValueError(
                "expected MaskTrack R-CNN of its authors or Mask R-CNN of mmdetection"
                f" 1.x, got {found!r}, which is of {model}"
            )
    tracks = any(name.startswith("track_head.") for name in names)
    return () if tracks else (TRACK_HEAD,)
