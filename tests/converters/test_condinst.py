import functools

import jax
import numpy as np
import pytest

from tests.converters import stored
from tests.converters.stored import check_whole
from vis_jax.backbones import resnet
from vis_jax.converters.load import convert_tensors
from vis_jax.params import flatten
from vis_jax.systems import condinst, iai
from vis_jax.systems.iai_model import IdSettings, ModelSettings
from vis_jax.training.dry_run import batch_shapes

KIND, CLASSES, IDS = "condinst", 40, 20
ASSOCIATION = ("lstt.", "encoder_projector.", "backbone_projector.")
IDENTITIES = ("bbox_head.id_", "bbox_head.conv_id")
HEAD = "params/detector/head"
CLASS_LAYERS = {f"{HEAD}/class_logits/{leaf}" for leaf in ("kernel", "bias")}


def blank(ids=True):
    """Shapes by official name, one number each."""
    dropped = ASSOCIATION if ids else (*ASSOCIATION, *IDENTITIES)
    return {
        name: x
        for name, x in stored.blank("iai_condinst_r50").items()
        if not name.startswith(dropped)
    }


@functools.cache
def shapes_of(classes=CLASSES, ids=IDS, norm="frozen_stats"):
    """Returns the shapes of CondInst or, with identities, of IAI's image model."""
    sizes = dict(num_classes=classes, backbone=resnet.Settings(norm=norm))
    if ids:
        model = ModelSettings(**sizes, ids=IdSettings(count=ids), association=False)
        system = iai.build(iai.Settings(model=model))
    else:
        model = condinst.ModelSettings(**sizes)
        system = condinst.build(condinst.Settings(model=model))
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    return dict(jax.eval_shape(system.init, jax.random.key(0), batch))


@pytest.fixture(scope="module")
def report():
    return convert_tensors(blank(), shapes_of(), KIND)[1]


def test_every_tensor_is_used_once_and_every_parameter_filled(report):
    check_whole(report, set(blank()))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("backbone.bn1.running_var", "constants/backbone/stem/conv1/norm/var"),
        ("backbone.layer1.0.conv1.weight", "params/backbone/res2_0/conv1/kernel"),
        ("backbone.layer3.5.bn2.weight", "params/backbone/res4_5/conv2/norm/scale"),
        ("neck.lateral_convs.0.conv.weight", "params/detector/fpn/lateral3/kernel"),
        ("neck.fpn_convs.4.conv.bias", "params/detector/fpn/output7/bias"),
        ("bbox_head.cls_convs.3.gn.bias", f"{HEAD}/class_tower/layers_3/norm/bias"),
        ("bbox_head.reg_convs.0.conv.weight", f"{HEAD}/box_tower/layers_0/kernel"),
        ("bbox_head.id_convs.0.gn.weight", f"{HEAD}/id_tower/layers_0/norm/scale"),
        ("bbox_head.conv_reg.bias", f"{HEAD}/distances/bias"),
        ("bbox_head.conv_centerness.bias", f"{HEAD}/centre_logits/bias"),
        ("bbox_head.scales.2.scale", f"{HEAD}/scale5"),
        (
            "bbox_head.mask_refine.2.1.running_mean",
            "batch_stats/detector/masks/refine5/norm/mean",
        ),
        (
            "bbox_head.mask_head.3.1.weight",
            "params/detector/masks/conv4/norm/scale",
        ),
        ("bbox_head.mask_head.4.bias", "params/detector/masks/output/bias"),
    ],
)
def test_tensors_go_where_they_belong(report, source, target):
    assert report.used[source] == (target,)
    assert np.unique(report.params[target]) == np.unique(blank()[source])


def test_a_model_for_coco_has_other_names_of_the_outputs():
    weights = {
        name.replace(".conv_", ".fcos_"): value
        for name, value in blank(ids=False).items()
    }
    assert "bbox_head.fcos_cls.weight" in weights
    report = convert_tensors(weights, shapes_of(ids=0), KIND)[1]
    assert report.new == ()
    assert report.used["bbox_head.fcos_centerness.bias"] == (
        f"{HEAD}/centre_logits/bias",
    )


def test_layers_of_the_classes_stay_new_for_other_classes():
    report = convert_tensors(blank(ids=False), shapes_of(80, 0), KIND)[1]
    assert set(report.new) == CLASS_LAYERS


def test_other_identities_stay_new():
    report = convert_tensors(blank(), shapes_of(ids=25), KIND)[1]
    assert set(report.new) == {f"{HEAD}/id_logits/{x}" for x in ("kernel", "bias")}


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_the_norms_of_the_backbone_may_be_others(norm):
    variables, report = convert_tensors(blank(), shapes_of(norm=norm), KIND)
    assert report.new == ()
    place = "constants" if norm == "frozen_batch" else "batch_stats"
    assert f"{place}/backbone/res4_5/conv2/norm/mean" in flatten(variables)
    assert "batch_stats/detector/masks/conv1/norm/mean" in flatten(variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.pop("bbox_head.controller.bias"),
            "head/controller/bias.*no source",
        ),
        (
            # mmdetection 3 has biases before the group norms.
            lambda x: x.update({"bbox_head.cls_convs.0.conv.bias": np.zeros(256)}),
            "cls_convs.0.conv.bias.*no rule",
        ),
    ],
)
def test_a_missing_tensor_and_an_unknown_one_are_errors(change, message):
    weights = blank()
    change(weights)
    with pytest.raises(ValueError, match=message):
        convert_tensors(weights, shapes_of(), KIND)
