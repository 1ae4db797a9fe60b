import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers.norm import FrozenBatchNorm, FrozenStatistics, GroupNorm, LayerNorm


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(np.float32)


def _gradient(layer, variables, x):
    """Of the sum of what the layer makes of x, for all variables."""
    total = jax.grad(lambda v, x: layer.apply(v, x).sum())
    return compiled(total)(variables, x)


def test_layer_norm_is_that_of_the_channels():
    x = draw(2, 3, 8)
    variables = {"params": {"scale": draw(8, seed=1), "bias": draw(8, seed=2)}}
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-5
    )
    expected = expected * variables["params"]["scale"] + variables["params"]["bias"]
    ours = compiled(LayerNorm().apply)(variables, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 16), (6, 2)])
def test_group_norm_has_as_many_of_32_groups_as_divide(channels, groups):
    x = draw(2, 3, 4, channels)
    split = x.reshape(2, 12, groups, -1)
    mean = split.mean(axis=(1, 3), keepdims=True)
    spread = np.sqrt(split.var(axis=(1, 3), keepdims=True) + 1e-5)
    expected = ((split - mean) / spread).reshape(x.shape)
    ours, _ = compiled(GroupNorm().init_with_output)(jax.random.key(0), x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_uses_constants_without_gradient():
    x = draw(2, 4, 4, 3)
    names = ("scale", "bias", "mean", "var")
    constants = {n: np.abs(draw(3, seed=i)) for i, n in enumerate(names)}
    variables = {"constants": constants}
    ours = compiled(FrozenBatchNorm().apply)(variables, x)
    scale, bias, mean, var = (constants[name] for name in names)
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    gradient = _gradient(FrozenBatchNorm(), variables, x)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


def test_frozen_statistics_equal_frozen_batch_norm_but_train_scale_and_bias():
    x = draw(2, 4, 4, 3)
    values = {
        n: np.abs(draw(3, seed=i))
        for i, n in enumerate(("scale", "bias", "mean", "var"))
    }
    expected = compiled(FrozenBatchNorm().apply)({"constants": values}, x)
    split = {
        "params": {name: values[name] for name in ("scale", "bias")},
        "constants": {name: values[name] for name in ("mean", "var")},
    }
    found = compiled(FrozenStatistics().apply)(split, x)
    np.testing.assert_array_equal(found, expected)
    gradient = _gradient(FrozenStatistics(), split, x)
    np.testing.assert_allclose(gradient["params"]["bias"], 32.0)
    assert gradient["params"]["scale"].all()
    assert not any(leaf.any() for leaf in gradient["constants"].values())


@pytest.mark.parametrize(
    "kind", [LayerNorm, GroupNorm, FrozenBatchNorm, FrozenStatistics]
)
def test_half_precision_in_and_out(kind):
    x = jax.ShapeDtypeStruct((1, 2, 2, 4), jnp.bfloat16)
    y, variables = jax.eval_shape(
        kind(jnp.bfloat16).init_with_output, jax.random.key(0), x
    )
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("f4")}
