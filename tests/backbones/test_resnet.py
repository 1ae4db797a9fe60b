import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.cases import load, nchw, nhwc
from vis_jax.backbones import BACKBONES
from vis_jax.backbones.resnet import ResNet, Settings, _max_pool
from vis_jax.converters.load import KINDS, convert_tensors
from vis_jax.converters.resnet import TORCHVISION
from vis_jax.converters.rules import convert, rename
from vis_jax.params import flatten, unflatten
from vis_jax.settings import read_settings


def test_matches_stored_outputs_of_torchvision():
    case = load("backbone_resnet50")
    images = jnp.asarray(nhwc(case.arrays["image"]))
    model = ResNet("50")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    shapes = {name: {"backbone": tree} for name, tree in shapes.items()}
    variables, report = convert_tensors(case.weights("torchvision"), shapes, "resnet")
    assert not report.new
    variables = {name: tree["backbone"] for name, tree in variables.items()}
    features = jax.jit(model.apply)(variables, images)
    for stage in range(1, 5):
        ours = nchw(features[f"res{stage + 1}"])
        case.check(f"torchvision/eval/layer{stage}", ours)


# Weights of the stages with scale and bias of their norms, of mmdetection.
STAGES = {"stem": 9_536, "res2": 393_216, "res3": 2_589_768}
STAGES |= {"res4": 55_585_182, "res5": 27_971_638}


def test_a_deformable_resnext_has_as_many_parameters_as_published():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    model = ResNet("x101_64x4d", norm="frozen_stats", deform_stages=(3, 4, 5))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    counts = dict.fromkeys(STAGES, 0)
    for path, leaf in flatten(params).items():
        counts[path.split("/")[0].split("_")[0]] += leaf.size
    assert counts == STAGES
    moved = {path.split("/")[0] for path in flatten(params) if "offset" in path}
    blocks = {3: 4, 4: 23, 5: 3}
    assert moved == {f"res{s}_{i}" for s, n in blocks.items() for i in range(n)}
    assert params["res4_0"]["conv2"]["offset"]["kernel"].shape == (3, 3, 1024, 18)
    assert params["res2_0"]["conv2"]["kernel"].shape == (3, 3, 4, 256)
    # The published sizes of the detectors with and without differ by this.
    offsets = sum(x.size for path, x in flatten(params).items() if "offset" in path)
    assert offsets == 143_299_601 - 138_156_533


@pytest.mark.parametrize(
    ("variant", "millions"), [("50", 23.45), ("101", 42.39), ("18", 11.17)]
)
def test_has_as_many_parameters_as_published(variant, millions):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(ResNet(variant).init, jax.random.key(0), images)
    count = sum(leaf.size for leaf in flatten(variables["params"]).values())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("style", ["torch", "caffe"])
def test_strides_and_channels(style):
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    model = BACKBONES["resnet"]("50", style=style, dtype=jnp.bfloat16, remat=True)
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    for index, (name, x) in enumerate(features.items()):
        assert name == f"res{index + 2}"
        assert x.shape == (2, 16 // 2**index, 24 // 2**index, 256 * 2**index)
        assert x.dtype == jnp.bfloat16


def test_thin_net_has_a_gradient_for_every_parameter_with_remat():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), "f4")
    model = ResNet("thin", norm="group", remat=True)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert set(variables) == {"params"}

    def loss(variables):
        return jnp.mean(model.apply(variables, images, True)["res5"] ** 2)

    for path, leaf in flatten(jax.jit(jax.grad(loss))(variables)).items():
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf), path


def test_deformable_stages_start_without_effect_and_learn_to_move():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 64, 3)), "f4")
    model = ResNet("thin", norm="group", deform_stages=(3, 5), remat=True)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    plain = unflatten(
        {k: v for k, v in flatten(variables).items() if "offset" not in k}
    )
    expected = jax.jit(ResNet("thin", norm="group").apply)(plain, images)

    def loss(variables):
        found = model.apply(variables, images, True)
        return jnp.mean(found["res5"] ** 2), found

    (_, ours), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    for name, x in expected.items():
        np.testing.assert_allclose(ours[name], x, atol=1e-4)
    moved = {k: v for k, v in flatten(gradient).items() if "offset" in k}
    stages = ("res3_0", "res5_0")
    assert set(moved) == {
        f"params/{stage}/conv2/offset/{leaf}"
        for stage in stages
        for leaf in ("kernel", "bias")
    }
    assert all(np.isfinite(x).all() and np.any(x) for x in moved.values())


def test_files_of_deformable_models_are_read():
    tensors = {
        "layer2.0.conv2.conv_offset.weight": np.zeros((18, 8, 3, 3), np.float32),
        "layer2.1.conv2_offset.bias": np.zeros(18, np.float32),
        "layer2.0.conv2.weight": np.zeros((8, 2, 3, 3), np.float32),
    }
    renamed = rename(tensors, TORCHVISION).tensors
    assert "backbone.res3.0.conv2_offset.weight" in renamed  # as in detectron2
    shapes = {
        "params/backbone/res3_0/conv2/offset/kernel": (3, 3, 8, 18),
        "params/backbone/res3_1/conv2/offset/bias": (18,),
        "params/backbone/res3_0/conv2/kernel": (3, 3, 2, 8),
    }
    _, rules, new = KINDS["resnet"]
    report = convert(renamed, shapes, rules)
    assert set(report.params) == set(shapes)
    # ImageNet models are not deformable.
    plain = {name: x for name, x in renamed.items() if "offset" not in name}
    report = convert(plain, shapes, rules, new=new)
    assert report.new == tuple(path for path in shapes if "offset" in path)


@pytest.mark.parametrize("variant", ["thin", "50"])
def test_batch_norm_keeps_statistics_of_every_norm(variant):
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    frozen = ResNet(variant, norm="frozen_stats")
    model = ResNet(variant, norm="batch", remat=True)
    constants = jax.eval_shape(frozen.init, jax.random.key(0), images)["constants"]
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, variables["batch_stats"]) == jax.tree.map(
        jnp.shape, constants
    )

    def apply(variables, images):
        return model.apply(variables, images, True, mutable=["batch_stats"])

    _, updates = jax.eval_shape(apply, variables, images)
    assert updates["batch_stats"] == variables["batch_stats"]


def test_batch_norm_trains_by_the_batch_and_evaluates_by_what_it_keeps():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 32, 64, 3)), jnp.float32)
    valid = jnp.array([True, True, False])
    models = [ResNet("thin", norm="batch", remat=remat) for remat in (False, True)]
    variables = jax.jit(models[0].init)(jax.random.key(0), images)

    def loss(params, model, images, valid):
        found, updates = model.apply(
            {**variables, "params": params}, images, True, valid, mutable=True
        )
        value = sum(jnp.mean(x[:2] ** 2) for x in found.values())
        return value, updates["batch_stats"]

    def run(model, *inputs):
        of = jax.value_and_grad(loss, has_aux=True)
        return jax.jit(of, static_argnums=1)(variables["params"], model, *inputs)

    (value, stats), gradient = run(models[0], images, valid)
    assert all(np.any(x) for x in jax.tree.leaves(gradient))
    for path, leaf in flatten(stats).items():
        assert np.any(leaf != flatten(variables["batch_stats"])[path]), path
    # As without the padded image, and with blocks that are computed again.
    for again in (run(models[0], images[:2], None), run(models[1], images, valid)):
        np.testing.assert_allclose(again[0][0], value, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            again[0][1], stats,
        )  # fmt: skip
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4),
            again[1], gradient,
        )  # fmt: skip
    evaluate = jax.jit(models[0].apply)
    before, after = (
        evaluate(variables, images),
        evaluate({**variables, "batch_stats": stats}, images),
    )
    assert np.abs(before["res5"] - after["res5"]).max() > 0.01
    alone = evaluate({**variables, "batch_stats": stats}, images[:1])
    np.testing.assert_allclose(alone["res5"], after["res5"][:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (7, 9), (8, 9), (1, 1)])
def test_max_pool_is_that_of_xla(size):
    x = np.random.default_rng(0).random((2, *size, 3), np.float32)
    window, pad = (1, 3, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    expected = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, (1, 2, 2, 1), pad)
    np.testing.assert_array_equal(_max_pool(jnp.asarray(x)), expected)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"variant": "51"}, "variant: expected one of .* got '51'"),
        ({"norm": "layer"}, "norm: expected 'frozen_batch' or .* got 'layer'"),
        ({"deform_stages": (6,)}, r"deform_stages.*, 2 \.\. 5, got"),
        ({"deform_modulated": True}, "deform_modulated: expected False without"),
        ({"style": "tf"}, "style: expected 'torch' or 'caffe', got 'tf'"),
    ],
)
def test_an_unknown_choice_is_an_error(field, expected):
    with pytest.raises(ValueError, match=f"^model.backbone.{expected}"):
        read_settings(Settings, field, "model.backbone")


@pytest.mark.parametrize("size", [(550, 550), (101, 75), (1, 33)])
def test_stages_of_any_size_round_up_as_in_pytorch(size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    model = ResNet("thin")
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    for stage in range(2, 6):
        sides = tuple(-(-side // 2**stage) for side in size)
        assert features[f"res{stage}"].shape[1:3] == sides
