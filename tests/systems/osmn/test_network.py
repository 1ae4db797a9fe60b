import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.params import flatten
from vis_jax.systems.osmn.network import OSMN, SpatialModulator, upsample

SMALL = OSMN(widths=(3, 4, 4, 5, 6), depths=(1, 1, 2, 1, 1), hidden=7, side_width=2)


def _inputs(images=2, objects=4, size=(32, 48)):
    rng = np.random.default_rng(0)
    guides = rng.normal(size=(objects, 32, 32, 3)).astype(np.float32)
    frames = rng.normal(size=(images, *size, 3)).astype(np.float32)
    heat = rng.random((objects, *size)).astype(np.float32)
    return jnp.asarray(guides), jnp.asarray(frames), jnp.asarray(heat)


def _init(model, inputs):
    valid = jnp.ones(len(inputs[0]), bool)
    init = functools.partial(model.init, train=False, train_norm=False)
    return init(jax.random.key(0), *inputs, valid=valid)


@pytest.fixture(scope="module")
def variables():
    """Values that are not those of a fresh network, whose sides are nearly zero."""
    shapes = jax.eval_shape(functools.partial(_init, SMALL), _inputs())
    rng = np.random.default_rng(1)

    def draw(x):
        return (rng.normal(size=x.shape) * 0.5).astype(np.float32)

    stats = jax.tree.map(
        lambda x: np.abs(draw(x)) + np.float32(0.1), shapes["batch_stats"]
    )
    return {"params": jax.tree.map(draw, shapes["params"]), "batch_stats": stats}


def _conv(x, layer, padding="SAME"):
    kernel = layer["kernel"]
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=dimensions
    )
    return x + layer.get("bias", jnp.zeros(kernel.shape[-1])).reshape(1, 1, 1, -1)


def _up(x, factor, size):
    """The authors' layer: transposed convolution, VALID, cut at the centre."""
    at = np.arange(2 * factor)
    line = 1 - np.abs(at - (factor - 0.5)) / factor
    kernel = np.zeros((2 * factor, 2 * factor, x.shape[-1], x.shape[-1]), np.float32)
    for channel in range(x.shape[-1]):
        kernel[:, :, channel, channel] = line[:, None] * line
    x = jax.lax.conv_transpose(x, kernel, (factor, factor), "VALID")
    top, left = ((x.shape[i + 1] - size[i]) // 2 for i in (0, 1))
    return x[:, top : top + size[0], left : left + size[1]]


def _pool(x, reduce):
    return reduce([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def _mean(parts):
    return sum(parts) / 4


def _max(parts):
    return functools.reduce(jnp.maximum, parts)


@compiled
def _literal(variables, image, gamma=None, heat=None):
    """Logits of one object, layer by layer as in the authors' code; or no guides."""
    params, size = variables["params"], image.shape[1:3]
    modulated = {}
    if heat is not None:
        x, start = _pool(heat[..., None], _mean), 0
        for block, depth in zip("345", SMALL.depths[2:], strict=True):
            x = _pool(x, _mean)
            y = _conv(x, params["modulator_sp"][f"conv{block}"])
            norm = params["modulator_sp"][f"norm{block}"]
            kept = variables["batch_stats"]["modulator_sp"][f"norm{block}"]
            y = (y - kept["mean"][None, None, None]) / jnp.sqrt(kept["var"] + 1e-3)[
                None, None, None
            ]
            y = nn.relu(
                y * norm["scale"][None, None, None] + norm["bias"][None, None, None]
            )
            width = y.shape[-1] // depth
            for index in range(depth):
                shift = y[..., index * width : (index + 1) * width]
                scale = gamma[start : start + width][None, None, None]
                modulated[f"conv{block}_{index + 1}"] = scale, shift
                start += width
    x, sides, seg = image, [], params["seg"]
    for block, depth in enumerate(SMALL.depths, 1):
        x = _pool(x, _max) if block > 1 else x
        for index in range(depth):
            name = f"conv{block}_{index + 1}"
            x = nn.relu(_conv(x, seg[f"conv{block}"][name]))
            if name in modulated:
                x = modulated[name][0] * x + modulated[name][1]
        if block > 1:
            side = _conv(x, seg[f"side{block}"])
            sides.append(_up(side, 2 ** (block - 1), size))
    fuse = seg["upscore_fuse"]
    logits = jnp.concatenate(sides, axis=-1) @ fuse["kernel"].reshape(-1)
    return logits + fuse["bias"][None, None]


@compiled
def _segment(variables, images, gamma, heat):
    shared = SMALL.apply(variables, images, method="features")
    return SMALL.apply(variables, shared, gamma, heat, method="segment")


def test_is_the_published_network_object_by_object(variables):
    _, images, heat = _inputs()
    gamma = np.random.default_rng(2).normal(size=(4, sum(SMALL.channels)))
    gamma = gamma.astype(np.float32)
    ours = _segment(variables, images, gamma, heat)
    for i in range(4):
        image = images[i // 2][None]  # two objects for each image
        expected = _literal(variables, image, gamma[i], heat[i][None])
        np.testing.assert_allclose(ours[i], expected[0], rtol=2e-4, atol=2e-4)


def test_without_shifts_a_fresh_modulator_leaves_the_plain_network(variables):
    guides, images, heat = _inputs()
    init = functools.partial(SMALL.init_with_output, method="modulate")
    gamma, _ = compiled(init)(jax.random.key(0), guides)
    np.testing.assert_array_equal(gamma, np.ones((4, sum(SMALL.channels))))
    params = dict(variables["params"])
    params["modulator_sp"] = {
        name: layer if name.startswith("conv") else jax.tree.map(np.zeros_like, layer)
        for name, layer in params["modulator_sp"].items()
    }
    plain = variables | {"params": params}
    ours = _segment(plain, images, gamma, heat)
    expected = np.repeat(_literal(plain, images), 2, axis=0)  # objects of each image
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_statistics_of_places_leave_out_padding():
    rng = np.random.default_rng(0)
    heat = rng.random((3, 16, 16)).astype(np.float32)
    valid = np.array([True, True, False])
    model = SpatialModulator((4, 2, 2))
    init = compiled(model.init, static_argnums=3)
    variables = init(jax.random.key(0), heat, valid, False)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    apply = compiled(apply)
    shifts, updates = apply(variables, heat, valid)
    assert [shift.shape for shift in shifts] == [
        (3, 4, 4, 4),
        (3, 2, 2, 2),
        (3, 1, 1, 2),
    ]
    kernel = variables["params"]["conv3"]["kernel"][0, 0, 0]
    pooled = heat.reshape(3, 4, 4, 4, 4).mean(axis=(2, 4))[:2]
    stats = updates["batch_stats"]["norm3"]
    np.testing.assert_allclose(stats["mean"], 0.01 * pooled.mean() * kernel, rtol=1e-4)
    spread = 0.99 + 0.01 * pooled.var(ddof=1) * kernel**2
    np.testing.assert_allclose(stats["var"], spread, rtol=1e-5)
    # Other numbers in the padding, and the rest stays as it was.
    other = heat * np.array([1, 1, 50], np.float32).reshape(3, 1, 1)
    again, _ = apply(variables, other, valid)
    for a, b in zip(again, shifts, strict=True):
        np.testing.assert_allclose(a[:2], b[:2], rtol=1e-5, atol=1e-6)


def test_upsampling_fades_at_the_border():
    ours = compiled(functools.partial(upsample, factor=2))(np.ones((1, 2, 2)))
    line = np.array([0.75, 1, 1, 0.75])
    np.testing.assert_allclose(ours[0], line[:, None] * line, rtol=1e-6)


def test_the_published_size():
    guides, images, heat = np.zeros((1, 224, 224, 3)), np.zeros((1, 64, 64, 3)), None
    heat = np.zeros((1, 64, 64))
    inputs = [x.astype(np.float32) for x in (guides, images, heat)]
    shapes = jax.eval_shape(functools.partial(_init, OSMN()), inputs)
    counts = {
        name: sum(x.size for x in flatten(tree).values())
        for name, tree in shapes["params"].items()
    }
    vgg = 14_714_688
    assert counts == {
        "modulator": vgg + 102_764_544 + 16_781_312 + 15_732_480,
        "modulator_sp": 3 * 3_840,
        "seg": vgg + 9 * 16 * (128 + 256 + 512 + 512) + 4 * 16 + 65,
    }


def test_bfloat16_computes_without_hidden_promotion():
    """Traced under strict promotion: a mix of dtypes would be an error."""
    model = SMALL.clone(dtype=jnp.bfloat16)
    inputs = _inputs()
    variables = jax.eval_shape(functools.partial(_init, model), inputs)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def run(variables, guides, images, heat):
        gamma = model.apply(variables, guides, method="modulate")
        shared = model.apply(variables, images, method="features")
        return model.apply(variables, shared, gamma, heat, method="segment")

    logits = jax.eval_shape(run, variables, *inputs)
    assert (logits.shape, logits.dtype) == ((4, 32, 48), jnp.float32)


def test_sides_that_cannot_be_pooled_are_errors(variables):
    guides, images, _ = _inputs()
    with pytest.raises(
        ValueError, match="guide: expected .* multiples of 32 .* 30 x 30"
    ):
        SMALL.apply(variables, guides[:, :30, :30], method="modulate")
    with pytest.raises(ValueError, match="canvas: expected .* multiples of 16"):
        SMALL.apply(variables, images[:, :20], method="features")


def test_each_block_needs_its_width_and_depth():
    with pytest.raises(ValueError, match="osmn.depths: expected 5 numbers, got .1, 1"):
        _init(SMALL.clone(depths=(1, 1, 1)), _inputs())
