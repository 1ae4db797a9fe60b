"""Hybrid Task Cascade weights, in mmdetection format.

Files of version 2 have the background last. Files of 1.x have it first, with a mask of
its own, and lack the prefix `roi_head.`. The models here have it last, with class
logits only. Layers whose shapes depend on the number of classes are reinitialised where
it differs; boxes are class-agnostic, so that layer never is.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from vis_jax.converters import mask_track_rcnn
from vis_jax.converters.mask_rcnn import (
    background_last,
    class_rules,
    roi_kernel,
    transposed_kernel,
    whole,
    without_background,
)
from vis_jax.converters.resnet import resnet_rules
from vis_jax.converters.rules import NameRule, Rename, Transform
from vis_jax.converters.swin import linear_rule
from vis_jax.converters.transforms import same

# Parts that a plain Hybrid Task Cascade lacks: MaskProp's mask propagation and
# refinement.
PROPAGATION = r"params/(propagation|refinement)/.*"

_PREFIX = "roi_head."  # prefix of the heads in version 2
_HEADS = r"roi_head\."
_MASK = r"mask_head\.(\d)"
_BOX = r"bbox_head\.(\d)"
_BRANCH = r"semantic_head"

# Maps backbone, pyramid and proposals to detectron2's names, as for Mask R-CNN, and
# numbered head layers to ours.
NAMES = [
    *[
        name
        for name in mask_track_rcnn.NAMES
        if name.target.startswith(("backbone.", "proposal_generator."))
    ],
    *[
        Rename(
            rf"((?:{_HEADS})?{head})\.{old}\.{index}\.conv\.(weight|bias)",
            rf"\1.{new}{index + first}.\{last}",
        )
        for head, old, new, first, last in (
            (r"mask_head\.\d", "convs", "conv", 1, 2),
            (_BRANCH, "convs", "conv", 1, 2),
            (_BRANCH, "lateral_convs", "lateral", 2, 2),
        )
        for index in range(8)
    ],
]


def _split(source: str, target: str, transform: Transform) -> list[NameRule]:
    """Returns rules for a layer whose kernel has its own transform."""
    return [
        NameRule(rf"{source}\.weight", ((f"params/{target}/kernel", transform),)),
        NameRule(rf"{source}\.bias", ((f"params/{target}/bias", same),)),
    ]


def _heads(prefix: str, logits: Callable, masks: Callable) -> list[NameRule]:
    """Returns rules for the heads of one version.

    Args:
      prefix: prefix of the names.
      logits, masks: wrap the transforms of class logits and mask rows.
    """
    box, mask, branch = (f"{prefix}{name}" for name in (_BOX, _MASK, _BRANCH))
    return [
        NameRule(
            rf"{prefix}mask_head\.0\.conv_res\..*",
            dropped="unused: older code made it for the first stage, too",
        ),
        *_split(rf"{box}\.shared_fcs\.0", r"box_heads_\1/fc1", roi_kernel),
        *linear_rule(rf"{box}\.shared_fcs\.1", r"box_heads_\1/fc2"),
        *linear_rule(rf"{box}\.fc_reg", r"box_heads_\1/deltas"),
        *class_rules(rf"{box}\.fc_cls", r"box_heads_\1/class_logits", logits),
        *linear_rule(rf"{mask}\.(conv\d)", r"mask_heads_\1/\2"),
        *linear_rule(rf"{mask}\.conv_res\.conv", r"mask_heads_\1/flow"),
        *_split(rf"{mask}\.upsample", r"mask_heads_\1/upsample", transposed_kernel),
        *class_rules(rf"{mask}\.conv_logits", r"mask_heads_\1/mask_logits", masks),
        *linear_rule(rf"{branch}\.((?:conv|lateral)\d)", r"semantic_head/\1"),
        *linear_rule(rf"{branch}\.conv_embedding\.conv", "semantic_head/embedding"),
        *class_rules(rf"{branch}\.conv_logits", "semantic_head/class_logits", whole),
    ]


def _without_first(transform: Transform) -> Transform:
    return without_background(1, transform)


RULES = [
    *resnet_rules("backbone.bottom_up.", "backbone/"),
    *linear_rule(r"backbone\.fpn_(lateral|output)(\d)", r"fpn/\1\2"),
    *[
        rule
        for old, new in (
            ("conv", "conv"),
            ("objectness_logits", "objectness"),
            ("anchor_deltas", "deltas"),
        )
        for rule in linear_rule(rf"proposal_generator\.rpn_head\.{old}", f"rpn/{new}")
    ],
    *_heads(_HEADS, whole, whole),
    *_heads("", background_last, _without_first),
]


def rules_for(rules: Sequence[NameRule], paths: Collection[str]) -> list[NameRule]:
    """Returns the rules for a model with or without a semantic branch.

    Args:
      rules: rules of this kind.
      paths: of the parameters of the model.
    """
    if any(path.startswith("params/semantic_head/") for path in paths):
        return [*rules]
    unused = NameRule(
        rf"(?:{_HEADS})?{_BRANCH}\..*",
        dropped="the config has model.semantic.enabled False",
    )
    return [unused, *rules]


def notes_on(names: Iterable[str]) -> tuple[str, ...]:
    """Returns report lines: the mmdetection version that the names belong to."""
    if any(name.startswith(_PREFIX) for name in names):
        return ()
    return (
        "names of mmdetection 1.x: the background was the first class, and the model"
        " was trained with model.conventions 'mmdetection'",
    )
