import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from vis_jax.backbones.fpn import FPN, Settings, _nearest
from vis_jax.params import flatten
from vis_jax.settings import read_settings
from vis_jax.systems.mask_track_rcnn import build_model


def backbone_shapes(height, width, dtype=jnp.float32):
    return {
        f"res{stage}": jax.ShapeDtypeStruct(
            (2, height // 2**stage, width // 2**stage, 2**stage), dtype
        )
        for stage in (2, 3, 4, 5)
    }


def shapes_of(model, features):
    """Returns the shapes of the levels and of the parameters."""
    found, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), features
    )
    params = flatten(variables["params"])
    return {k: x.shape for k, x in found.items()}, {
        k: x.shape for k, x in params.items()
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_strides_and_channels(dtype):
    features = backbone_shapes(96, 160)
    model = FPN(8, dtype=dtype)
    levels, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), features)
    assert {name: x.shape for name, x in levels.items()} == {
        "p2": (2, 24, 40, 8),
        "p3": (2, 12, 20, 8),
        "p4": (2, 6, 10, 8),
        "p5": (2, 3, 5, 8),
        "p6": (2, 2, 3, 8),
    }
    assert all(x.dtype == dtype for x in levels.values())


@pytest.mark.parametrize("extra", ["conv", "relu_conv"])
def test_a_pyramid_from_the_third_stage_to_a_seventh_level(extra):
    """The pyramid of YOLACT and CondInst, at 480 x 864."""
    model = FPN(8, extra=extra, finest=3, coarsest=7)
    levels, params = shapes_of(model, backbone_shapes(480, 864))
    sides = {name: shape[1:3] for name, shape in levels.items()}
    assert sides == {
        "p3": (60, 108), "p4": (30, 54), "p5": (15, 27), "p6": (8, 14), "p7": (4, 7)
    }  # fmt: skip
    names = [f"lateral{n}" for n in (3, 4, 5)] + [f"output{n}" for n in (3, 4, 5, 6, 7)]
    assert {path.split("/")[0] for path in params} == set(names)
    assert params["output7/kernel"] == (3, 3, 8, 8)
    plain, fewer = shapes_of(FPN(8, finest=3, coarsest=7), backbone_shapes(480, 864))
    assert plain == levels
    assert set(fewer) == {path for path in params if path[6] not in "67"}


def test_doubling_repeats_every_cell():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(_nearest(x, (4, 4))[0, ..., 0], expected)


def test_other_sizes_take_the_cell_at_the_top_left_corner():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    # Columns 0 .. 4 begin at 0, 0.6, 1.2, 1.8, 2.4 of three; rows at 0, 0.67, 1.33.
    expected = [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    np.testing.assert_array_equal(_nearest(x, (3, 5))[0, ..., 0], expected)


# Stages of a canvas that no power of two divides, as the 550 x 550 of YOLACT.
ODD = {3: (9, 7), 4: (5, 4), 5: (3, 2)}


@functools.cache
def _odd():
    rng = np.random.default_rng(0)
    features = {
        f"res{stage}": rng.normal(size=(1, *size, 4)).astype(np.float32)
        for stage, size in ODD.items()
    }
    model = FPN(3, extra="conv", finest=3, coarsest=7)
    shapes = jax.eval_shape(model.init, jax.random.key(0), features)
    draw = functools.partial(rng.normal, 0.0, 0.3)
    params = jax.tree.map(lambda x: draw(size=x.shape).astype("f4"), shapes["params"])
    return features, params


def _conv(x, layer, stride=1):
    """Convolves one map in float64, with equal padding on all sides."""
    kernel, side = layer["kernel"].astype("f8"), layer["kernel"].shape[0]
    pad = side // 2
    wide = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns = (1 + (n - 1) // stride for n in x.shape[:2])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride, column * stride
        patch = wide[top : top + side, left : left + side]
        out[row, column] = np.einsum("yxc,yxcd->d", patch, kernel)
    return out + layer["bias"]


def _enlarged(x, size, upsample):
    """`torch.nn.functional.interpolate` with align_corners False, cell by cell."""
    out = np.zeros((*size, x.shape[-1]))
    for row, column in np.ndindex(size):
        at = [i * n / m for i, n, m in zip((row, column), x.shape, size, strict=False)]
        if upsample == "nearest":
            out[row, column] = x[int(at[0]), int(at[1])]
            continue
        for y, x_ in np.ndindex(x.shape[:2]):
            weight = 1.0
            for i, new, old, cell in zip(
                (row, column), size, x.shape, (y, x_), strict=False
            ):
                place = np.clip((i + 0.5) * old / new - 0.5, 0, old - 1)
                weight *= max(0.0, 1 - abs(place - cell))
            out[row, column] += weight * x[y, x_]
    return out


def _literal(upsample, extra, relu_outputs):
    """The pyramid of the module's docstring, level by level."""
    features, params = _odd()
    levels, top = {}, None
    for stage in (5, 4, 3):
        x = _conv(features[f"res{stage}"][0], params[f"lateral{stage}"])
        top = x if top is None else x + _enlarged(top, x.shape[:2], upsample)
        out = _conv(top, params[f"output{stage}"])
        levels[f"p{stage}"] = np.maximum(out, 0) if relu_outputs else out
    x = levels["p5"]
    for number in (6, 7):
        if extra == "pool":
            x = x[::2, ::2]
        else:
            if extra == "relu_conv" and number == 7:
                x = np.maximum(x, 0)
            x = _conv(x, params[f"output{number}"], 2)
        levels[f"p{number}"] = x
    return levels


YOLACT = dict(upsample="bilinear", extra="conv", relu_outputs=True)
CONDINST = dict(upsample="nearest", extra="relu_conv", relu_outputs=False)
MASK_RCNN = dict(upsample="nearest", extra="pool", relu_outputs=False)


@pytest.mark.parametrize("fields", [YOLACT, CONDINST, MASK_RCNN])
def test_is_the_pyramid_written_out(fields):
    features, params = _odd()
    model = FPN(3, **fields, finest=3, coarsest=7)
    ours = compiled(model.apply)({"params": params}, features)
    expected = _literal(**fields)
    assert list(ours) == list(expected)[2::-1] + ["p6", "p7"]
    for name, level in expected.items():
        np.testing.assert_allclose(ours[name][0], level, atol=1e-5, err_msg=name)
    # So the three differ, and in every level but those that they share.
    other = _literal(**(YOLACT if fields != YOLACT else CONDINST))
    assert all(
        np.abs(level - other[name]).max() > 1e-3 for name, level in expected.items()
    )


def test_every_kind_has_a_gradient_for_every_parameter():
    features, params = _odd()

    def loss(params, fields):
        model = FPN(3, **dict(fields), finest=3, coarsest=7)
        levels = model.apply({"params": params}, jax.tree.map(jnp.asarray, features))
        return sum(jnp.sum(jnp.square(x)) for x in levels.values())

    gradient = compiled(jax.grad(loss), static_argnums=1)
    for fields in (YOLACT, CONDINST):
        found = gradient(params, tuple(fields.items()))
        for path, leaf in flatten(found).items():
            assert np.any(leaf), path


def test_defaults_are_those_of_mask_r_cnn():
    settings = Settings()
    assert {name: getattr(settings, name) for name in MASK_RCNN} == MASK_RCNN
    fields = FPN.__dataclass_fields__
    assert {name: fields[name].default for name in MASK_RCNN} == MASK_RCNN


@pytest.mark.parametrize(
    ("field", "value"), [("upsample", "bilinear"), ("relu_outputs", True)]
)
def test_a_setting_changes_the_levels_of_a_detector(field, value):
    changes = {f"model.fpn.{field}": value}
    models = [
        build_model(recipe("mask_track_rcnn_shapes", "debug", c)) for c in ({}, changes)
    ]
    rng = np.random.default_rng(0)
    features = {
        name: rng.normal(size=x.shape).astype(np.float32)
        for name, x in backbone_shapes(64, 64).items()
    }
    variables = compiled(models[0].fpn.init)(jax.random.key(0), features)
    plain, other = (compiled(m.fpn.apply)(variables, features) for m in models)
    assert np.abs(plain["p2"] - other["p2"]).max() > 0.01


@pytest.mark.parametrize("extra", ["conv", "relu_conv"])
def test_a_detector_may_make_its_coarsest_level_by_a_convolution(extra):
    changes = {"model.fpn.extra": extra}
    model = build_model(recipe("mask_track_rcnn_shapes", "debug", changes))
    levels, params = shapes_of(model.fpn, backbone_shapes(64, 64))
    assert levels["p6"] == (2, 1, 1, 16)
    assert "output6/kernel" in params


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"upsample": "cubic"}, "upsample: expected 'nearest' or 'bilinear'"),
        ({"extra": "relu"}, "extra: expected 'pool' or 'conv' or 'relu_conv', got 'r"),
        ({"relu_outputs": 1}, "relu_outputs: expected bool, got 1"),
    ],
)
def test_an_unknown_choice_is_an_error(field, expected):
    with pytest.raises(ValueError, match=f"^model.fpn.{expected}"):
        read_settings(Settings, field, "model.fpn")
