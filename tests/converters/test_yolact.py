import functools

import numpy as np
import pytest

from tests.converters.stored import blank, check_whole
from tests.golden import yolact as golden
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.yolact import Settings, build_modules
from vis_jax.params import flatten

KIND = "yolact"
CLASS_LAYERS = {
    f"params/detector/{layer}/{leaf}"
    for layer in ("head/class_logits", "semantic")
    for leaf in ("kernel", "bias")
}
tensors = functools.partial(blank, "yolact_r50")


def shapes_of(classes, norm="batch"):
    detector = build_modules(Settings(num_classes=classes), np.float32)
    return golden.shapes_of(golden.Network(ResNet("50", norm=norm), detector))


@pytest.fixture(scope="module")
def report():
    return convert_tensors(tensors(), shapes_of(80), KIND)[1]


def test_every_tensor_is_used_once_and_every_parameter_filled(report):
    check_whole(report, set(tensors()))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("backbone.bn1.running_var", "batch_stats/backbone/stem/conv1/norm/var"),
        ("backbone.layers.0.0.conv1.weight", "params/backbone/res2_0/conv1/kernel"),
        ("backbone.layers.2.5.bn2.weight", "params/backbone/res4_5/conv2/norm/scale"),
        (
            "backbone.layers.1.0.downsample.1.running_mean",
            "batch_stats/backbone/res3_0/shortcut/norm/mean",
        ),
        ("fpn.lat_layers.0.weight", "params/detector/fpn/lateral5/kernel"),
        ("fpn.pred_layers.2.bias", "params/detector/fpn/output3/bias"),
        ("fpn.downsample_layers.1.bias", "params/detector/fpn/output7/bias"),
        ("proto_net.8.bias", "params/detector/protonet/conv4/bias"),
        ("proto_net.10.bias", "params/detector/protonet/prototypes/bias"),
        ("prediction_layers.0.bbox_layer.bias", "params/detector/head/deltas/bias"),
        ("semantic_seg_conv.bias", "params/detector/semantic/bias"),
    ],
)  # fmt: skip
def test_tensors_go_where_they_belong(report, source, target):
    assert report.used[source] == (target,)
    assert np.unique(report.params[target]) == np.unique(tensors()[source])


def test_layers_of_the_classes_stay_new_for_other_classes():
    _, report = convert_tensors(tensors(), shapes_of(40), KIND)
    assert set(report.new) == CLASS_LAYERS


def test_the_norms_may_be_constants():
    variables, report = convert_tensors(tensors(), shapes_of(80, "frozen_batch"), KIND)
    assert report.new == ()
    assert "constants/backbone/res4_5/conv2/norm/scale" in flatten(variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("proto_net.4.bias"), "protonet/conv3/bias.*no source"),
        (
            # YOLACT++ has deformable convolutions.
            lambda x: x.update(
                {"backbone.layers.1.0.conv2.conv_offset_mask.bias": np.zeros(27)}
            ),
            "conv_offset_mask.bias.*no rule",
        ),
    ],
)
def test_a_missing_tensor_and_an_unknown_one_are_errors(change, message):
    weights = tensors()
    change(weights)
    with pytest.raises(ValueError, match=message):
        convert_tensors(weights, shapes_of(80), KIND)
