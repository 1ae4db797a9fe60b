"""Mask R-CNN weights with a ResNet and FPN: detectron2 and torchvision.

torchvision has the background first, with a box and mask of its own; detectron2 and the
models here have it last, with class logits only. Layers whose shapes depend on the
number of classes are reinitialised where it differs.

torchvision's COCO files were trained with a batch norm epsilon of 0, which is 1e-5
here: a relative difference of 5e-6 / variance in a channel's scale.
"""

import math
from collections.abc import Callable

import numpy as np

from vis_jax.converters.resnet import TORCHVISION as RESNET
from vis_jax.converters.resnet import resnet_rules
from vis_jax.converters.rules import NameRule, Rename, Shape, Transform
from vis_jax.converters.swin import linear_rule
from vis_jax.converters.transforms import kernel, same


def _roi_kernel(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    if len(shape) != 4 or tensor.shape != (shape[3], math.prod(shape[:3])):
        return tensor
    height, width, channels, features = shape
    split = tensor.reshape(features, channels, height, width)
    return split.transpose(2, 3, 1, 0)


def _roi_kernel_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.transpose(3, 2, 0, 1).reshape(array.shape[3], -1)


# [out, C * h * w] to [h, w, C, out]: a linear layer on RoI features.
roi_kernel = Transform(_roi_kernel, _roi_kernel_back)


def _transposed_kernel(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    del shape
    return tensor.transpose(0, 2, 3, 1) if tensor.ndim == 4 else tensor


def _transposed_kernel_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.transpose(0, 3, 1, 2)


# [in, out, h, w] of a transposed convolution to [in, h, w, out].
transposed_kernel = Transform(_transposed_kernel, _transposed_kernel_back)


def background_last(transform: Transform) -> Transform:
    """Moves the first row to the end before the transform."""

    def take(tensor: np.ndarray, shape: Shape, /) -> np.ndarray:
        return transform(np.roll(tensor, -1, axis=0), shape)

    def give(array: np.ndarray, outputs: int, /) -> np.ndarray:
        return np.roll(transform.back(array, outputs), 1, axis=0)

    return transform._replace(forward=take, back=give)


def without_background(rows: int, transform: Transform) -> Transform:
    """Drops the first rows before the transform; in reverse they are zeros."""

    def take(tensor: np.ndarray, shape: Shape, /) -> np.ndarray:
        return transform(tensor[rows:], shape)

    def give(array: np.ndarray, outputs: int, /) -> np.ndarray:
        found = transform.back(array, outputs)
        return np.concatenate(
            [np.zeros_like(found, shape=(rows, *found.shape[1:])), found]
        )

    return transform._replace(forward=take, back=give)


def whole(transform: Transform) -> Transform:
    """Returns the transform unchanged."""
    return transform


def class_rules(source: str, target: str, rows: Callable) -> list[NameRule]:
    """Returns rules for a layer whose rows are classes; `rows` wraps a transform."""
    return [
        NameRule(
            rf"{source}\.{old}", ((f"params/{target}/{new}", rows(how)),), fresh=True
        )
        for old, new, how in (("weight", "kernel", kernel), ("bias", "bias", same))
    ]


_ROI = r"roi_heads\."
_RPN = r"proposal_generator\.rpn_head\."

_SHARED = [
    *resnet_rules("backbone.bottom_up.", "backbone/"),
    *linear_rule(r"backbone\.fpn_(lateral|output)(\d)", r"fpn/\1\2"),
    *linear_rule(rf"{_RPN}conv", "rpn/conv"),
    *linear_rule(rf"{_RPN}objectness_logits", "rpn/objectness"),
    *linear_rule(rf"{_RPN}anchor_deltas", "rpn/deltas"),
    NameRule(
        rf"{_ROI}box_head\.fc1\.weight", (("params/box_head/fc1/kernel", roi_kernel),)
    ),
    NameRule(rf"{_ROI}box_head\.fc1\.bias", (("params/box_head/fc1/bias", same),)),
    *linear_rule(rf"{_ROI}box_head\.fc2", "box_head/fc2"),
    *linear_rule(rf"{_ROI}mask_head\.mask_fcn(\d)", r"mask_head/conv\1"),
    NameRule(
        rf"{_ROI}mask_head\.deconv\.weight",
        (("params/mask_head/upsample/kernel", transposed_kernel),),
    ),
    NameRule(
        rf"{_ROI}mask_head\.deconv\.bias", (("params/mask_head/upsample/bias", same),)
    ),
]

DETECTRON2 = [
    *_SHARED,
    *class_rules(rf"{_ROI}box_predictor\.cls_score", "box_head/class_logits", whole),
    *class_rules(rf"{_ROI}box_predictor\.bbox_pred", "box_head/deltas", whole),
    *class_rules(rf"{_ROI}mask_head\.predictor", "mask_head/mask_logits", whole),
    NameRule(
        r"pixel_(mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d",
        dropped="settings of the model",
    ),
]

_BOX_ROWS = 4

TORCHVISION = [
    *_SHARED,
    *class_rules(
        rf"{_ROI}box_predictor\.cls_score", "box_head/class_logits", background_last
    ),
    *class_rules(
        rf"{_ROI}box_predictor\.bbox_pred",
        "box_head/deltas",
        lambda transform: without_background(_BOX_ROWS, transform),
    ),
    *class_rules(
        rf"{_ROI}mask_head\.predictor",
        "mask_head/mask_logits",
        lambda transform: without_background(1, transform),
    ),
]

# Maps torchvision's names, including those of older files, to detectron2's.
TORCHVISION_NAMES = [
    *[
        Rename(
            rf"backbone\.body\.{rule.source}",
            rule.target.replace("backbone.", "backbone.bottom_up.", 1),
        )
        for rule in RESNET
    ],
    *[
        Rename(
            rf"backbone\.fpn\.{old}_blocks\.{index}(?:\.0)?\.(weight|bias)",
            rf"backbone.fpn_{new}{index + 2}.\1",
        )
        for old, new in (("inner", "lateral"), ("layer", "output"))
        for index in range(4)
    ],
    Rename(
        r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)",
        r"proposal_generator.rpn_head.conv.\1",
    ),
    Rename(
        r"rpn\.head\.cls_logits\.(\w+)",
        r"proposal_generator.rpn_head.objectness_logits.\1",
    ),
    Rename(
        r"rpn\.head\.bbox_pred\.(\w+)",
        r"proposal_generator.rpn_head.anchor_deltas.\1",
    ),
    Rename(r"roi_heads\.box_head\.fc6\.(\w+)", r"roi_heads.box_head.fc1.\1"),
    Rename(r"roi_heads\.box_head\.fc7\.(\w+)", r"roi_heads.box_head.fc2.\1"),
    *[
        Rename(
            rf"roi_heads\.mask_head\.(?:{index}\.0|mask_fcn{index + 1})\.(weight|bias)",
            rf"roi_heads.mask_head.mask_fcn{index + 1}.\1",
        )
        for index in range(4)
    ],
    Rename(
        r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)",
        r"roi_heads.mask_head.deconv.\1",
    ),
    Rename(
        r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)",
        r"roi_heads.mask_head.predictor.\1",
    ),
]
