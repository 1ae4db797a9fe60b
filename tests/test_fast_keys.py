"""Numbers drawn in tests look random, and nothing draws the same ones twice."""

import jax
import numpy as np
import pytest

from tests.compiled import compiled

N = 10_000


def _alone(key):
    return jax.random.uniform(key, (N,))


def _split(key):
    keys = jax.random.split(key, N // 10)
    return jax.vmap(lambda key: jax.random.uniform(key, (10,)))(keys).ravel()


def _folded(key):
    def draw(number):
        return jax.random.uniform(jax.random.fold_in(key, number), (10,))

    return jax.vmap(draw)(np.arange(N // 10)).ravel()


def _seeded(key):
    def draw(seed):
        return jax.random.uniform(jax.random.key(seed), (10,))

    return jax.vmap(draw)(np.arange(N // 10)).ravel()


@pytest.mark.parametrize("draw", [_alone, _split, _folded, _seeded])
def test_numbers_are_uniform_and_do_not_depend_on_their_neighbours(draw):
    found = compiled(draw)(jax.random.key(3))
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert counts.sum() == N
    assert ((counts - N / 20) ** 2 / (N / 20)).sum() < 44  # chi square, p = 0.001
    for shift in (1, 9, 10, 11):
        correlation = np.corrcoef(found[shift:], found[:-shift])[0, 1]
        assert abs(correlation) < 3.3 / np.sqrt(N)
    assert len(np.unique(found)) > 0.999 * N


def test_bits_are_those_of_the_key_and_width_alone():
    @compiled
    def draw(key):
        return [jax.random.bits(key, (N,), dtype) for dtype in ("uint8", "uint32")]

    (small, wide), (again, _), (other, _) = map(draw, map(jax.random.key, (0, 0, 1)))
    assert (small.dtype, wide.dtype) == (np.uint8, np.uint32)
    np.testing.assert_array_equal(small, again)
    assert (small == other).mean() < 0.01
