import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.bilinear import aligned_upsample

upsample = compiled(aligned_upsample, static_argnums=1)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1, [0, 1, 2, 3]),
        (2, [0, 0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (4, [0, 0, 0, *np.arange(0.25, 3.01, 0.25), 3]),
    ],
)
def test_a_row(factor, expected):
    x = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    found = upsample(x, factor)
    assert found.shape == (factor, 4 * factor, 1)
    np.testing.assert_allclose(found, np.tile(expected, (factor, 1))[..., None])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_formula_in_both_axes(factor):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 2)).astype(np.float32)
    expected = np.zeros((2, 3 * factor, 5 * factor, 2))
    for i, j in np.ndindex(3 * factor, 5 * factor):
        y = min(max((i - factor // 2) / factor, 0), 2)
        z = min(max((j - factor // 2) / factor, 0), 4)
        for row, column in np.ndindex(3, 5):
            weight = max(1 - abs(y - row), 0) * max(1 - abs(z - column), 0)
            expected[:, i, j] += weight * x[:, row, column]
    np.testing.assert_allclose(upsample(x, factor), expected, atol=1e-6)


def test_a_constant_stays_and_every_point_has_weight_one():
    x = np.ones((2, 3, 1), np.float32)
    np.testing.assert_allclose(upsample(x, 4), 1, rtol=1e-6)
    gradient = compiled(jax.grad(lambda x: aligned_upsample(x, 4).sum()))(x)
    np.testing.assert_allclose(gradient.sum(), 8 * 12, rtol=1e-6)


def test_keeps_the_dtype():
    x = np.ones((2, 3, 1), jax.numpy.bfloat16)
    assert upsample(x, 2).dtype == jax.numpy.bfloat16
