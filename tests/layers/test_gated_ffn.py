"""The feed-forward part that sees its map, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.layers.literal_ffn import channel_gate, depthwise, gated_ffn
from vis_jax.layers.gated_ffn import ChannelGate, DepthwiseConv, GatedFeedForward
from vis_jax.params import flatten


def _weights(module, x, scale=0.5):
    """Random parameters: all are at work, unlike at the start of training."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: scale * rng.normal(size=leaf.shape).astype(np.float32), shapes
    )


def _map(channels, height=5, width=4):
    rng = np.random.default_rng(1)
    return rng.normal(size=(2, height, width, channels)).astype(np.float32)


def _run(module, params, x):
    return compiled(lambda params, x: module.apply({"params": params}, x))(params, x)


def test_depthwise_convolution_is_a_loop_over_taps():
    module, x = DepthwiseConv(5), _map(3)
    params = _weights(module, x)
    found = _run(module, params, x)
    for ours, one in zip(found, x.astype(float), strict=True):
        expected = depthwise(params["kernel"][:, :, 0].astype(float), one)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_gate_is_that_of_the_formula():
    module, x = ChannelGate(), _map(6)
    params = _weights(module, x, scale=1.0)
    found = _run(module, params, x)
    vectors = {name: value.astype(float) for name, value in params.items()}
    for ours, one in zip(found, x.astype(float), strict=True):
        np.testing.assert_allclose(ours, channel_gate(one, **vectors), atol=1e-5)
    still = {**params, "gamma": 0 * params["gamma"], "beta": 0 * params["beta"]}
    np.testing.assert_array_equal(_run(module, still, x), x)


def test_the_whole_part_is_a_loop_over_tokens():
    module, x = GatedFeedForward(64), _map(8)
    params = _weights(module, x)
    found = _run(module, params, x)
    weights = {name: value.astype(float) for name, value in flatten(params).items()}
    for ours, one in zip(found, x.astype(float), strict=True):
        np.testing.assert_allclose(ours, gated_ffn(weights, one), atol=1e-4)


def test_initial_values_are_xavier_as_pytorch_reads_the_shapes():
    x = jnp.zeros((1, 2, 2, 256))
    key = jax.random.key(0)
    params = compiled(GatedFeedForward(1024).init)(key, x)["params"]
    for value, bound in (
        (params["gate"]["alpha"], 0.0765),
        (params["gate"]["gamma"], 0.0765),
        (params["gate"]["beta"], 0.0765),
        (params["conv"]["kernel"], 0.0153),
        (params["linear1"]["bias"], 1 / 16),
        (params["linear2"]["bias"], 1 / 32),
    ):
        np.testing.assert_allclose(np.abs(value).max(), bound, rtol=0.02)
