import functools

import numpy as np
import pytest

from tests.converters.stored import blank, check_whole
from tests.golden.cases import load
from tests.golden.iai import settings_of_case, shapes_of
from vis_jax.converters.load import convert_tensors
from vis_jax.settings import read_settings
from vis_jax.systems import iai

BLOCK = "params/hab/block"
NEW_IDS = {
    "params/hab/id_bank/kernel",
    "params/detector/head/id_logits/kernel",
    "params/detector/head/id_logits/bias",
}
tensors = functools.partial(blank, "iai_condinst_r50")


def shapes(**model):
    """Returns the shapes of the stored case's variables, with changes."""
    settings = settings_of_case(load("iai_condinst_r50"))
    return shapes_of(read_settings(iai.Settings, {"model": model}, base=settings))


@functools.cache
def stored_shapes():
    return shapes()


@pytest.fixture(scope="module")
def report():
    return convert_tensors(tensors(), stored_shapes(), "iai")[1]


def test_every_tensor_is_used_once_and_every_parameter_filled(report):
    check_whole(report, set(tensors()))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("encoder_projector.bias", "params/hab/encoder_projector/bias"),
        ("backbone_projector.weight", "params/hab/backbone_projector/kernel"),
        ("lstt.patch_wise_id_bank.bias", "params/hab/id_bank/bias"),
        ("lstt.LSTT.decoder_norms.0.bias", f"{BLOCK}/out_norm/bias"),
        ("lstt.LSTT.layers.0.norm1.weight", f"{BLOCK}/memory_norm/scale"),
        ("lstt.LSTT.layers.0.norm2.weight", f"{BLOCK}/self_norm/scale"),
        ("lstt.LSTT.layers.0.linear_V.bias", f"{BLOCK}/value/bias"),
        (
            "lstt.LSTT.layers.0.self_attn.linear_V.weight",
            f"{BLOCK}/self_attention/value/kernel",
        ),
        (
            "lstt.LSTT.layers.0.short_term_attn.V_bias",
            f"{BLOCK}/local_attention/value_bias",
        ),
        ("lstt.LSTT.layers.0.activation.GCT.beta", f"{BLOCK}/ffn/gate/beta"),
    ],
)
def test_tensors_go_where_they_belong(report, source, target):
    assert report.used[source] == (target,)
    assert np.unique(report.params[target]) == np.unique(tensors()[source])


def test_other_identities_stay_new():
    found = convert_tensors(tensors(), shapes(ids={"count": 25}), "iai")[1]
    assert set(found.new) == NEW_IDS


def test_a_condinst_leaves_the_association_and_the_id_head_new():
    image_model = {
        name: value
        for name, value in tensors().items()
        if name.startswith(("backbone.", "neck.", "bbox_head."))
        and not name.startswith(("bbox_head.id_", "bbox_head.conv_id"))
    }
    found = convert_tensors(image_model, stored_shapes(), "condinst")[1]
    assert found.new
    starts = ("params/hab/", "params/detector/head/id_")
    assert all(path.startswith(starts) for path in found.new)


def test_without_the_class_projector_a_condinst_has_another_layer_behind_the_stage():
    image_model = {
        name: value
        for name, value in tensors().items()
        if name.startswith(("backbone.", "neck.", "bbox_head."))
    }
    without = shapes(hab={"use_cls_projector": False})
    found = convert_tensors(image_model, without, "condinst")[1]
    assert "params/detector/fpn/lateral5/kernel" in found.new
    assert "params/detector/fpn/lateral4/kernel" not in found.new
