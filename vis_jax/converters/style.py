"""Backbone style: pixel scaling and position of the strides.

'torch': RGB divided by its std, strides in the 3x3 convolutions. 'caffe': BGR without
division, strides in the first 1x1. Shapes do not reveal it, and the wrong style gives
meaningless outputs. So it is inferred from a file's contents; if they do not suffice,
the user must state it.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vis_jax.converters.files import WeightsSource

STYLES = ("torch", "caffe")
_OSMN = ("osmn", "vgg16")
_WORDS = {
    "torch": "RGB pixels divided by their spread, strides in the 3x3 convolutions",
    "caffe": "BGR pixels without division, strides in the first 1x1 convolutions",
}
_CAFFE2_NAME = re.compile(r"(res_)?conv1_(w|bn_s)|res\d_\d+_branch2a_w")
_DETECTRON2_NAME = re.compile(r"(backbone\.(bottom_up\.)?)?stem\.conv1\.weight")


class InferredStyle(NamedTuple):
    """Style inferred from a file, and the evidence; empty if unknown."""

    style: str
    why: str


def style_of(source: WeightsSource, kind: str) -> InferredStyle:
    """Infers the style of the weights from the file.

    Raises:
      ValueError: the file's pixel scaling is neither style.
    """
    if kind == "osmn":
        return InferredStyle("caffe", "OSMN of its authors")
    if kind == "vgg16":
        if "classifier.0.weight" in source.tensors:
            return InferredStyle("torch", "torchvision's VGG-16")
        return InferredStyle("", "a VGG-16 without torchvision's classifier")
    pixels = _of_pixels(source.tensors)
    if pixels.style:
        return pixels
    name = source.files[0].name
    if re.search(r"caffe|msra", name, re.IGNORECASE):
        return InferredStyle("caffe", f"the name of the file, {name}")
    return _of_kind(source, kind)


def check_style(
    source: WeightsSource, kind: str, fields: Mapping[str, object], given: str | None
) -> tuple[str, ...]:
    """Returns the report lines about the style.

    Args:
      source: the weights.
      kind: see `KINDS`.
      fields: fields of the config, by path; only those of the style are read.
      given: the style stated by the user; None = none.

    Raises:
      ValueError: the config's style differs from the file's, or the file does not
        reveal it and the user did not state it.
    """
    field = f"model.{'osmn' if kind in _OSMN else 'backbone'}.style"
    ours = fields.get(field)
    if ours is None or kind == "swin":
        return ()
    found = style_of(source, kind)
    if given and found.style and given != found.style:
        raise ValueError(
            f"--style: expected {found.style!r}, which the file has by {found.why}, got"
            f" {given!r}"
        )
    if not given and not found.style:
        raise ValueError(
            f"--style: expected 'torch' ({_WORDS['torch']}) or 'caffe'"
            f" ({_WORDS['caffe']}), as the file does not tell: {found.why}"
        )
    style = found.style or given
    why = found.why if found.style else "--style"
    if style != ours:
        raise ValueError(
            f"the weights are of style {style!r} ({_WORDS[str(style)]}) by {why}, the"
            f" config has {field} {ours!r}; give --config.{field}={style}"
        )
    return (f"style {style} by {why}",)


def _of_pixels(tensors: Mapping[str, np.ndarray]) -> InferredStyle:
    """Infers the style from pixel mean and std, which detectron2 may store."""
    mean, std = tensors.get("pixel_mean"), tensors.get("pixel_std")
    if mean is None or std is None or mean.size != 3 or std.size != 3:
        return InferredStyle("", "")
    blue_first = mean.ravel()[0] < mean.ravel()[2]
    divided = not np.allclose(std, 1.0)
    if blue_first != divided:
        style = "torch" if divided else "caffe"
        return InferredStyle(style, f"its pixel_std, {std.ravel().tolist()}")
    raise ValueError(
        "expected RGB pixels divided by their spread, or BGR pixels that are not, got"
        f" pixel_mean {mean.ravel().tolist()} and pixel_std {std.ravel().tolist()}"
    )


def _of_kind(source: WeightsSource, kind: str) -> InferredStyle:
    names, author = source.tensors, source.beside.get("__author__")
    if kind in ("condinst", "htc", "iai", "mask_track_rcnn"):
        return _of_mmdetection(source)
    if kind == "mask_rcnn_torchvision":
        return InferredStyle("torch", "torchvision's Mask R-CNN")
    if kind in ("yolact", "rgnn_vis"):
        return InferredStyle("torch", "YOLACT of its authors")
    if kind in ("mask2former", "huggingface"):
        return InferredStyle(
            "torch", "Mask2Former's own settings; the file does not say"
        )
    if any(_CAFFE2_NAME.fullmatch(name) for name in names):
        return InferredStyle("caffe", "the names of Caffe2")
    if kind == "resnet" and names.keys() & {"fc.weight", "fc.bias"}:
        return InferredStyle("torch", "torchvision's classifier")
    if any(_DETECTRON2_NAME.fullmatch(name) for name in names):
        # The author is not decisive: detectron2's zoo has both styles.
        return InferredStyle(
            "", f"names of detectron2, author {author!s:.40}, no pixel_std"
        )
    return InferredStyle(
        "", "torchvision's names without its classifier, as converted ones"
    )


def _of_mmdetection(source: WeightsSource) -> InferredStyle:
    """Infers the style from the config in 'meta'; the authors' models are torch."""
    meta = source.beside.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    match = (
        re.search(r"style\s*=\s*['\"](\w+)", text) if isinstance(text, str) else None
    )
    if match and match[1] in ("caffe", "pytorch"):
        style = "caffe" if match[1] == "caffe" else "torch"
        return InferredStyle(style, f"style {match[1]!r} in its config")
    return InferredStyle("torch", "the authors' settings; the file does not say")
