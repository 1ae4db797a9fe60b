import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers.mlp import FeedForward, Mlp, gelu


def _linear(params, x):
    return x @ params["kernel"] + params["bias"]


def test_mlp_has_relu_between_its_layers_only():
    module = Mlp(hidden=6, out=3, layers=3)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    out, variables = compiled(module.init_with_output)(jax.random.key(0), x)
    p = variables["params"]
    h = np.maximum(_linear(p["layers_0"], x), 0)
    h = np.maximum(_linear(p["layers_1"], h), 0)
    np.testing.assert_allclose(out, _linear(p["layers_2"], h), atol=1e-6)
    assert (out < 0).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_is_the_exact_one(dtype):
    x = np.linspace(-8, 8, 101, dtype=np.float32).astype(dtype)
    wide = x.astype(np.float64)
    erf = np.array([math.erf(v / math.sqrt(2)) for v in wide])
    found, slopes = compiled(jax.value_and_grad(lambda x: gelu(x).sum()))(x)
    values = compiled(gelu)(x)
    assert found.dtype == values.dtype == slopes.dtype == dtype
    # A float32 keeps 24 digits of `1 + erf`, a bfloat16 8 of the result.
    rtol = 1e-6 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(
        values.astype(np.float64), wide * (1 + erf) / 2, rtol=rtol, atol=1e-6
    )
    density = np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(
        slopes.astype(np.float64), (1 + erf) / 2 + wide * density, rtol=rtol, atol=1e-6
    )


def test_feed_forward_widens_and_narrows():
    module = FeedForward(hidden=6)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    out, variables = compiled(module.init_with_output)(jax.random.key(0), x)
    p = variables["params"]
    h = np.maximum(_linear(p["linear1"], x), 0)
    np.testing.assert_allclose(out, _linear(p["linear2"], h), atol=1e-6)


def test_start_as_pytorch_does():
    x = np.zeros((1, 64))
    mlp = compiled(Mlp(64, 64, 1).init)(jax.random.key(0), x)["params"]["layers_0"]
    feed = compiled(FeedForward(192).init)(jax.random.key(0), x)["params"]
    bounds = [
        (mlp["kernel"], 64**-0.5),
        (feed["linear1"]["kernel"], (6 / (64 + 192)) ** 0.5),
        (feed["linear2"]["kernel"], (6 / (64 + 192)) ** 0.5),
        (feed["linear1"]["bias"], 64**-0.5),
        (feed["linear2"]["bias"], 192**-0.5),
    ]
    for values, bound in bounds:
        assert 0.9 * bound < np.abs(values).max() <= bound
