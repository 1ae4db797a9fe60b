import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.ops.literal_deform import literal_deform_conv
from vis_jax.layers.conv import Conv
from vis_jax.layers.deform_conv import DeformConv


@pytest.mark.parametrize("modulated", [False, True])
def test_starts_as_a_grouped_convolution_and_moves_by_what_it_predicts(modulated):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 4)).astype(np.float32)
    layer = DeformConv(6, 2, "group", groups=2, modulated=modulated)
    plain = Conv(6, 3, 2, "group", groups=2)
    variables = jax.device_get(jax.jit(layer.init)(jax.random.key(0), x))
    offset = variables["params"].pop("offset")
    assert offset["kernel"].shape == (3, 3, 4, 27 if modulated else 18)
    assert not any(leaf.any() for leaf in jax.tree.leaves(offset))
    apply, apply_plain = compiled(layer.apply), compiled(plain.apply)

    def moved(offset, variables=variables):
        return apply({"params": variables["params"] | {"offset": offset}}, x)

    # The norm divides by the half that all readings weigh at first.
    near = dict(atol=1e-3)
    np.testing.assert_allclose(moved(offset), apply_plain(variables, x), **near)

    offset = {
        "kernel": rng.normal(size=offset["kernel"].shape).astype(np.float32) / 4,
        "bias": rng.normal(size=offset["bias"].shape).astype(np.float32),
    }
    said = Conv(len(offset["bias"]), 3, 2, use_bias=True)
    said = compiled(said.apply)({"params": offset}, x)
    weights = 1 / (1 + np.exp(-said[..., 18:].reshape(2, 2, 3, 1, -1)))
    weights = weights.reshape(2, 2, 3, 1, 3, 3) if modulated else [None] * 2
    offsets = said[..., :18].reshape(2, 2, 3, 1, 3, 3, 2)
    kernel = variables["params"]["kernel"].astype(np.float64)
    expected = [
        literal_deform_conv(*inputs, stride=2, padding=1, dilation=1)
        for inputs in zip(x, [kernel] * 2, offsets, weights, strict=True)
    ]
    whole = Conv(6, 1, norm="group")
    eye = {"kernel": np.eye(6, dtype=np.float32)[None, None]}
    params = eye | {"norm": variables["params"]["norm"]}
    expected = compiled(whole.apply)({"params": params}, np.stack(expected, dtype="f4"))
    np.testing.assert_allclose(moved(offset), expected, **near)


def test_positions_are_float32_whatever_the_network_computes_in():
    x = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.bfloat16)
    layer = DeformConv(2, 1, "frozen_batch", modulated=True, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("f4")}
    traced = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert "floor" in traced
    assert not [
        line for line in traced.splitlines() if "floor" in line and "bf16" in line
    ]
