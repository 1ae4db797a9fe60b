from pathlib import Path

import numpy as np
import pytest

from tests.converters.test_load import backbone_shapes
from tests.golden.cases import load
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.files import WeightsSource
from vis_jax.converters.load import convert_tensors
from vis_jax.converters.style import check_style, style_of
from vis_jax.params import flatten

RGB = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}
BGR = {"pixel_mean": (103.53, 116.28, 123.675), "pixel_std": (1.0, 1.0, 1.0)}
FIELD = "model.backbone.style"
STEM = "backbone.bottom_up.stem.conv1.weight"


def source(*names, beside=None, file="weights.pkl", **pixels):
    tensors = dict.fromkeys(names, np.zeros(1, np.float32))
    tensors |= {name: np.reshape(x, (3, 1, 1)) for name, x in pixels.items()}
    return WeightsSource((Path(file),), tensors, beside or {}, None, (), ())


def author(name):
    return {"__author__": name}


CASES = [
    ("resnet", source("conv1_w", "res_conv1_bn_s"), "caffe"),
    ("resnet", source("res2_0_branch2a_w"), "caffe"),
    ("resnet", source("stem.conv1.weight", beside=author("torchvision")), ""),
    ("resnet", source("conv1.weight", "fc.weight"), "torch"),
    ("resnet", source("conv1.weight", file="resnet50_msra-5891d200.pth"), "caffe"),
    ("resnet", source("conv1.weight"), ""),
    ("resnet", source("stem.conv1.weight"), ""),
    ("mask_rcnn_detectron2", source("a", **BGR, beside=author("me")), "caffe"),
    ("mask_rcnn_detectron2", source("a", **RGB), "torch"),
    (
        "mask_rcnn_detectron2",
        source(STEM, beside=author("Detectron2 Model Zoo")),
        "",
    ),
    (
        "mask_rcnn_detectron2",
        source(STEM, **BGR, beside=author("Detectron2 Model Zoo")),
        "caffe",
    ),
    (
        "mask_rcnn_detectron2",
        source(STEM, **RGB, beside=author("Detectron2 Model Zoo")),
        "torch",
    ),
    ("mask_rcnn_detectron2", source(STEM), ""),
    ("mask_rcnn_torchvision", source("a"), "torch"),
    ("mask_track_rcnn", source("a"), "torch"),
    (
        "mask_track_rcnn",
        source("a", beside={"meta": {"config": "dict(depth=50, style='caffe',)"}}),
        "caffe",
    ),
    (
        "mask_track_rcnn",
        source("a", beside={"meta": {"config": 'style = "pytorch"'}}),
        "torch",
    ),
    ("mask_track_rcnn", source("a", file="mask_rcnn_r50_caffe_fpn_1x.pth"), "caffe"),
    ("mask2former", source("a"), "torch"),
    ("yolact", source("a"), "torch"),
    ("condinst", source("a"), "torch"),
    ("htc", source("a"), "torch"),
    (
        "condinst",
        source("a", beside={"meta": {"config": "dict(depth=50, style='caffe',)"}}),
        "caffe",
    ),
    ("mask2former", source("a", **BGR), "caffe"),
    ("huggingface", source("a"), "torch"),
    ("osmn", source("a"), "caffe"),
    ("vgg16", source("classifier.0.weight"), "torch"),
    ("vgg16", source("features.0.weight"), ""),
]


@pytest.mark.parametrize(("kind", "weights", "style"), CASES)
def test_a_file_tells_its_style_or_not(kind, weights, style):
    found = style_of(weights, kind)
    assert found.style == style
    assert found.why


@pytest.mark.parametrize(("kind", "weights", "style"), CASES)
def test_a_config_has_the_style_of_the_file(kind, weights, style):
    field = "model.osmn.style" if kind in ("osmn", "vgg16") else FIELD
    for ours in ("torch", "caffe"):
        if style == ours:
            (line,) = check_style(weights, kind, {field: ours}, None)
            assert line.startswith(f"style {style} by ")
            continue
        match = rf"give --config.{field}={style}" if style else "--style: expected 'to"
        with pytest.raises(ValueError, match=match):
            check_style(weights, kind, {field: ours}, None)


def test_the_user_may_know_what_the_file_does_not_tell():
    unknown = source("conv1.weight")
    assert check_style(unknown, "resnet", {FIELD: "caffe"}, "caffe") == (
        "style caffe by --style",
    )
    with pytest.raises(ValueError, match=f"--config.{FIELD}=caffe"):
        check_style(unknown, "resnet", {FIELD: "torch"}, "caffe")
    with pytest.raises(ValueError, match="--style: expected 'caffe', which the file"):
        check_style(source("conv1_w"), "resnet", {FIELD: "torch"}, "torch")


@pytest.mark.parametrize(("mean", "std"), [(RGB, BGR), (BGR, RGB)])
def test_pixels_in_neither_style_are_an_error(mean, std):
    pixels = {"pixel_mean": mean["pixel_mean"], "pixel_std": std["pixel_std"]}
    with pytest.raises(ValueError, match="expected RGB pixels divided by"):
        style_of(source("a", **pixels), "mask_rcnn_detectron2")


def test_a_config_without_a_resnet_has_no_style():
    assert check_style(source("a"), "swin", {}, None) == ()


@pytest.mark.parametrize("statistics", [True, False])
def test_a_bias_of_the_stem_is_taken_off_the_mean(statistics):
    weights = dict(load("backbone_resnet50").weights("detectron2"))
    mean = weights["stem.conv1.norm.running_mean"]
    if not statistics:  # merged into scale and bias, as in Caffe2's files
        weights = {k: x for k, x in weights.items() if "running" not in k}
        mean = np.zeros_like(mean)
    bias = np.arange(64, dtype=np.float32)
    shapes = backbone_shapes(ResNet("50"))
    variables, report = convert_tensors(
        weights | {"stem.conv1.bias": bias}, shapes, "resnet"
    )
    path = "constants/backbone/stem/conv1/norm/mean"
    np.testing.assert_array_equal(flatten(variables)[path], mean - bias)
    assert report.used["stem.conv1.bias"] == (path,)
    assert "stem.conv1.bias, a bias of the first convolution" in report.notes[0]


def test_a_bias_of_zeros_is_dropped():
    weights = dict(load("backbone_resnet50").weights("detectron2"))
    weights["stem.conv1.bias"] = np.zeros(64, np.float32)
    _, report = convert_tensors(weights, backbone_shapes(ResNet("50")), "resnet")
    assert report.dropped == {"stem.conv1.bias": "a bias of zeros"}
    assert report.notes == ()
