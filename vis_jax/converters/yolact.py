"""YOLACT weights with a ResNet, in the format of the released code.

Its pyramid layers are ordered from coarsest to finest. The background is the first
class, as here. Layers whose shapes depend on the number of classes or aspect ratios are
reinitialised where it differs.
"""

from vis_jax.converters.resnet import NORM_FIELDS, resnet_rules
from vis_jax.converters.rules import NameRule, Rename
from vis_jax.converters.swin import linear_rule
from vis_jax.converters.transforms import kernel, same

# Maps backbone names to detectron2's.
NAMES = [
    Rename(r"backbone\.conv1\.weight", "backbone.stem.conv1.weight"),
    Rename(rf"backbone\.bn1\.{NORM_FIELDS}", r"backbone.stem.conv1.norm.\1"),
    *[
        rename
        for stage in range(4)
        for old, new in [(rf"backbone\.layers\.{stage}\.", f"backbone.res{stage + 2}.")]
        for rename in (
            Rename(rf"{old}(\d+)\.conv(\d)\.weight", rf"{new}\1.conv\2.weight"),
            Rename(rf"{old}(\d+)\.bn(\d)\.{NORM_FIELDS}", rf"{new}\1.conv\2.norm.\3"),
            Rename(rf"{old}(\d+)\.downsample\.0\.weight", rf"{new}\1.shortcut.weight"),
            Rename(
                rf"{old}(\d+)\.downsample\.1\.{NORM_FIELDS}",
                rf"{new}\1.shortcut.norm.\2",
            ),
        )
    ],
]

_LAYERS = {
    **{
        rf"fpn\.{old}_layers\.{place}": f"fpn/{new}{level}"
        for old, new in (("lat", "lateral"), ("pred", "output"))
        for place, level in enumerate((5, 4, 3))
    },
    r"fpn\.downsample_layers\.0": "fpn/output6",
    r"fpn\.downsample_layers\.1": "fpn/output7",
    # ReLUs in between and, at 6, the upsampling.
    **{
        rf"proto_net\.{place}": f"protonet/conv{number}"
        for number, place in enumerate((0, 2, 4, 8), start=1)
    },
    r"prediction_layers\.0\.upfeature\.0": "head/shared",
}

# Layers whose shapes depend on classes, ratios or prototypes.
_OUTPUTS = {
    r"proto_net\.10": "protonet/prototypes",
    r"prediction_layers\.0\.bbox_layer": "head/deltas",
    r"prediction_layers\.0\.conf_layer": "head/class_logits",
    r"prediction_layers\.0\.mask_layer": "head/coefficients",
    r"semantic_seg_conv": "semantic",
}

RULES = [
    *resnet_rules("backbone.", "backbone/"),
    *[
        rule
        for source, target in _LAYERS.items()
        for rule in linear_rule(source, f"detector/{target}")
    ],
    *[
        NameRule(
            rf"{source}\.{old}", ((f"params/detector/{target}/{new}", how),), fresh=True
        )
        for source, target in _OUTPUTS.items()
        for old, new, how in (("weight", "kernel", kernel), ("bias", "bias", same))
    ],
]
