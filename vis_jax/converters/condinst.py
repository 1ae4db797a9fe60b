"""CondInst weights with a ResNet, in mmdetection 2 format.

The names are those of the released IAI, and of the COCO CondInst it starts from, whose
outputs have the prefix `fcos_`. Layers whose shapes depend on the number of classes or
identities are reinitialised where it differs. mmdetection 3 and AdelaiDet use
convolutions with biases before the group norms, which are unsupported.
"""

import numpy as np

from vis_jax.converters.resnet import CONSTANTS, resnet_rules
from vis_jax.converters.resnet import TORCHVISION as RESNET
from vis_jax.converters.rules import NameRule, Rename, Shape, Transform
from vis_jax.converters.swin import linear_rule, norm_rule
from vis_jax.converters.transforms import kernel, same

# Maps backbone names to detectron2's, and output names to IAI's.
NAMES = [
    *[Rename(rf"backbone\.{rule.source}", rule.target) for rule in RESNET],
    Rename(
        r"bbox_head\.fcos_(cls|reg|centerness)\.(weight|bias)",
        r"bbox_head.conv_\1.\2",
    ),
]

_DETECTOR, _HEAD = "detector", "detector/head"

_LAYERS = {
    r"neck\.lateral_convs\.0\.conv": f"{_DETECTOR}/fpn/lateral3",
    **{
        rf"neck\.fpn_convs\.{place}\.conv": f"{_DETECTOR}/fpn/output{place + 3}"
        for place in range(5)
    },
    r"bbox_head\.conv_reg": f"{_HEAD}/distances",
    r"bbox_head\.conv_centerness": f"{_HEAD}/centre_logits",
    r"bbox_head\.controller": f"{_HEAD}/controller",
    r"bbox_head\.mask_head\.4": f"{_DETECTOR}/masks/output",
}

# Layers whose shapes depend on classes, identities or the channels of a stage replaced
# by association.
_OUTPUTS = {
    **{
        rf"neck\.lateral_convs\.{place}\.conv": f"{_DETECTOR}/fpn/lateral{place + 3}"
        for place in (1, 2)
    },
    r"bbox_head\.conv_cls": f"{_HEAD}/class_logits",
    r"bbox_head\.conv_id": f"{_HEAD}/id_logits",
}

_TOWERS = {"cls": "class", "reg": "box", "id": "id"}

# Convolutions of the mask branch, and their batch norms.
_BRANCH = {
    **{
        rf"bbox_head\.mask_refine\.{place}": f"{_DETECTOR}/masks/refine{place + 3}"
        for place in range(3)
    },
    **{
        rf"bbox_head\.mask_head\.{place}": f"{_DETECTOR}/masks/conv{place + 1}"
        for place in range(4)
    },
}


def _single(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.reshape(shape) if tensor.size == 1 else tensor


def _single_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.reshape(())


# A scalar as a vector of length one.
_SCALAR = Transform(_single, _single_back)


def _branch_rules(source: str, target: str) -> list[NameRule]:
    where = {"scale": "params", "bias": "params"}
    return [
        NameRule(rf"{source}\.0\.weight", ((f"params/{target}/kernel", kernel),)),
        *[
            NameRule(
                rf"{source}\.1\.{old}",
                ((f"{where.get(new, 'batch_stats')}/{target}/norm/{new}", same),),
            )
            for old, new in CONSTANTS.items()
        ],
        NameRule(
            rf"{source}\.1\.num_batches_tracked", dropped="counter of training steps"
        ),
    ]


RULES = [
    *resnet_rules("backbone.", "backbone/"),
    *[
        rule
        for source, target in _LAYERS.items()
        for rule in linear_rule(source, target)
    ],
    *[
        rule
        for old, new in _TOWERS.items()
        for rule in (
            NameRule(
                rf"bbox_head\.{old}_convs\.(\d)\.conv\.weight",
                ((rf"params/{_HEAD}/{new}_tower/layers_\1/kernel", kernel),),
            ),
            *norm_rule(
                rf"bbox_head\.{old}_convs\.(\d)\.gn",
                rf"{_HEAD}/{new}_tower/layers_\1/norm",
            ),
        )
    ],
    *[
        NameRule(
            rf"bbox_head\.scales\.{place}\.scale",
            ((f"params/{_HEAD}/scale{place + 3}", _SCALAR),),
        )
        for place in range(5)
    ],
    *[
        NameRule(rf"{source}\.{old}", ((f"params/{target}/{new}", how),), fresh=True)
        for source, target in _OUTPUTS.items()
        for old, new, how in (("weight", "kernel", kernel), ("bias", "bias", same))
    ],
    *[
        rule
        for source, target in _BRANCH.items()
        for rule in _branch_rules(source, target)
    ],
]
