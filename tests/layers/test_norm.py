import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers.norm import (
    BatchNorm,
    FrozenBatchNorm,
    FrozenStatistics,
    GroupNorm,
    LayerNorm,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(np.float32)


def _gradient(layer, variables, x):
    """Returns the gradients of the summed output, for all variables."""
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


def _trained(x, variables, valid=None, **fields):
    layer = BatchNorm(**fields)
    apply = functools.partial(layer.apply, train=True, mutable=["batch_stats"])
    return compiled(apply)(variables, x, valid=valid)


def _batch_norm(channels):
    names = ("scale", "bias", "mean", "var")
    values = {n: np.abs(draw(channels, seed=i)) for i, n in enumerate(names, 1)}
    return {
        "params": {name: values[name] for name in names[:2]},
        "batch_stats": {name: values[name] for name in names[2:]},
    }


def test_batch_norm_in_numbers():
    """The values 1, 2, 3, 6 of one channel: mean 3, variance 3.5, unbiased 14 / 3."""
    x = np.array([1.0, 2, 3, 6], np.float32).reshape(2, 1, 2, 1)
    fresh = {
        "params": {"scale": np.full(1, 2.0), "bias": np.full(1, 1.0)},
        "batch_stats": {"mean": np.zeros(1), "var": np.ones(1)},
    }
    y, updates = _trained(x, fresh)
    expected = 1 + 2 * np.array([-2, -1, 0, 3]) / np.sqrt(3.5 + 1e-5)
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.3, rtol=1e-6)
    np.testing.assert_allclose(
        updates["batch_stats"]["var"], 0.9 + 0.1 * 14 / 3, rtol=1e-6
    )


@pytest.mark.parametrize("momentum", [0.1, 0.25])
def test_batch_norm_is_that_of_torch_in_training_and_evaluation(momentum):
    """`torch.nn.BatchNorm2d` as documented, in NumPy and float64, of three batches."""
    variables = _batch_norm(3)
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    mean, var = (variables["batch_stats"][n].astype("f8") for n in ("mean", "var"))
    for seed in range(3):
        x = draw(2, 5, 4, 3, seed=seed + 10)
        wide = x.astype("f8").reshape(-1, 3)
        found = (x - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-3) * scale + bias
        mean = (1 - momentum) * mean + momentum * wide.mean(0)
        var = (1 - momentum) * var + momentum * wide.var(0, ddof=1)
        y, updates = _trained(x, variables, momentum=momentum, epsilon=1e-3)
        np.testing.assert_allclose(y, found, rtol=1e-4, atol=1e-4)
        variables = {**variables, **updates}
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-5)
    y = compiled(BatchNorm(epsilon=1e-3).apply)(variables, x)
    found = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(y, found, rtol=1e-4, atol=1e-4)


def test_padded_images_change_neither_statistics_nor_other_images():
    x, variables = draw(4, 3, 3, 2), _batch_norm(2)
    valid = np.array([True, False, True, False])
    alone, expected = _trained(x[valid], variables)
    for noise in (0.0, 100.0):
        padded = x + noise * ~valid.reshape(4, 1, 1, 1)
        y, updates = _trained(padded.astype(np.float32), variables, valid)
        np.testing.assert_allclose(y[valid], alone, rtol=1e-5, atol=1e-6)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, expected
        )


def test_padded_places_do_not_change_the_statistics():
    x, variables = draw(2, 5, 3, 2), _batch_norm(2)
    valid = np.arange(5) < np.array([[5], [2]])
    y, updates = _trained(x + 100 * ~valid[..., None, None], variables, valid)
    alone, expected = _trained(x[valid], variables)
    np.testing.assert_allclose(y[valid], alone, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, expected
    )


def test_a_batch_of_padding_alone_is_normalised_by_what_is_kept_and_not_kept():
    x, variables = draw(2, 3, 3, 2), _batch_norm(2)
    y, updates = _trained(x, variables, np.zeros(2, bool))
    jax.tree.map(
        np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"]
    )
    expected = compiled(BatchNorm().apply)(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)

    def loss(variables):
        y, _ = BatchNorm().apply(
            variables, jnp.asarray(x), True, jnp.zeros(2, bool), mutable=["batch_stats"]
        )
        return (y**2).sum()

    gradient = compiled(jax.grad(loss))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_gradient_of_batch_norm_goes_through_the_statistics():
    """Shifted or scaled inputs give the same output: their gradient is zero."""
    variables = jax.tree.map(jnp.asarray, _batch_norm(2))
    wish = draw(2, 3, 3, 2, seed=5)

    def loss(shift, factor, x):
        y, _ = BatchNorm(epsilon=0.0).apply(
            variables, factor * x + shift, True, mutable=["batch_stats"]
        )
        return (y * wish).sum()

    gradient = compiled(jax.grad(loss, argnums=(0, 1)))
    found = gradient(np.float32(0.5), np.float32(2.0), draw(2, 3, 3, 2))
    np.testing.assert_allclose(found, 0.0, atol=1e-3)


def test_a_large_mean_costs_no_digits():
    x = draw(2, 3, 3, 2).astype("f8")
    shifted = (x + 4096).astype(np.float32)
    y, _ = _trained(shifted, _batch_norm(2))
    expected, _ = _trained((shifted - 4096).astype(np.float32), _batch_norm(2))
    # The rest is the mean's own rounding, 1 / 2 ** 12 of a value at 4096.
    np.testing.assert_allclose(y, expected, atol=1e-3)


def test_initial_statistics_are_not_those_of_the_first_batch():
    init = compiled(functools.partial(BatchNorm().init, train=True))
    stats = init(jax.random.key(0), draw(2, 3, 3, 2))["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], [0, 0])
    np.testing.assert_array_equal(stats["var"], [1, 1])


@pytest.mark.parametrize(
    "kind", [LayerNorm, GroupNorm, FrozenBatchNorm, FrozenStatistics, BatchNorm]
)
def test_half_precision_in_and_out(kind):
    x = jax.ShapeDtypeStruct((1, 2, 2, 4), jnp.bfloat16)
    y, variables = jax.eval_shape(
        kind(dtype=jnp.bfloat16).init_with_output, jax.random.key(0), x
    )
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("f4")}
