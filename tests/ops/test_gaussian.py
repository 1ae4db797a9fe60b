import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops import gaussian


def test_likelihood_is_that_of_independent_normals():
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 4, 6)).astype(np.float32)
    var = rng.uniform(0.1, 2, (4, 6)).astype(np.float32)
    found = compiled(gaussian.log_likelihood)(x, mean, var)
    apart = (x[None].astype(np.float64) - mean[:, None]) ** 2 / var[:, None]
    expected = -0.5 * (apart + np.log(2 * np.pi * var[:, None].astype(np.float64)))
    np.testing.assert_allclose(found, expected.sum(axis=-1), rtol=1e-5)
    toy = [np.float32([x]) for x in ([1, 2], [0, 0], [1, 4])]
    found = compiled(gaussian.log_likelihood)(*toy)
    np.testing.assert_allclose(found, [[-3.531024]], rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "variance"),
    [("released", 1.441667), ("paper", 2.775), ("normal_inverse_chi2", 1.275)],
)
def test_updates_of_the_three_rules(rule, variance):
    one = np.ones(1, np.float32)
    update = compiled(functools.partial(gaussian.update, rule=rule))
    mean, var = update(
        np.float32([[2]]),
        np.float32([[0]]),
        np.float32([[1]]),
        mean_rate=0.5 * one,
        var_rate=0.25 * one,
        spread=np.float32([0.1]),
    )
    np.testing.assert_allclose(mean, [[1.0]])
    np.testing.assert_allclose(var, [[variance]], rtol=1e-6)


def test_rates_of_zero_change_nothing():
    zero, x = np.zeros(3, np.float32), np.float32(np.arange(6).reshape(3, 2))
    update = compiled(functools.partial(gaussian.update, rule="released"))
    mean, var = update(
        x,
        -x,
        x + 1,
        mean_rate=zero,
        var_rate=zero,
        spread=zero,
    )
    np.testing.assert_array_equal(mean, -x)
    np.testing.assert_array_equal(var, x + 1)
