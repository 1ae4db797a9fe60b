import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.masks import mask_pool

pool = compiled(functools.partial(mask_pool, background=10.0))
SURE = 60.0


def test_two_masks_that_share_a_pixel():
    features = np.array([[1.0, 5.0, 9.0]], np.float32)[..., None]
    logits = np.full((2, 1, 3), -SURE, np.float32)
    logits[0, 0, :2] = logits[1, 0, 1:] = SURE
    found = pool(features, logits, np.ones(2, bool))
    expected = [(1 + 5 / 2) / (1.5 + 1e-4), (5 / 2 + 9) / (1.5 + 1e-4)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_the_background_takes_half_of_an_equal_logit():
    features = np.array([[2.0, 4.0]], np.float32)[..., None]
    logits = np.array([[[10.0, -SURE]]], np.float32)
    found = pool(features, logits, np.ones(1, bool))
    np.testing.assert_allclose(found, [[1 / (0.5 + 1e-4)]], rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 20), (3, 5), (7, 9)])
def test_the_definition(size):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 5, 4)).astype(np.float32)
    logits = rng.normal(10, 3, (3, *size)).astype(np.float32)
    valid = np.array([True, False, True])
    expected = np.zeros((3, 4))
    total = np.full(3, 1e-4)
    for i, j in np.ndindex(3, 5):
        planes = np.array([_half_pixel(x, i, j) for x in logits])
        powers = np.exp(planes) * valid
        shares = powers / (powers.sum() + np.exp(10.0))
        expected += shares[:, None] * features[i, j]
        total += shares
    found = pool(features, logits, valid)
    np.testing.assert_allclose(found, expected / total[:, None], atol=2e-5)
    assert (found[1] == 0).all()


def test_masks_in_any_order_and_any_number_of_invalid_ones():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, 5, 4)).astype(np.float32)
    logits = rng.normal(10, 3, (4, 6, 10)).astype(np.float32)
    found = pool(features, logits[:2], np.ones(2, bool))
    order = [3, 1, 2, 0]
    more = pool(features, logits[order], np.isin(order, (0, 1)))
    np.testing.assert_allclose(more[[3, 1]], found, atol=1e-6)


def _half_pixel(plane, i, j):
    """The plane at the centre of cell i, j of a map of 3 x 5."""
    height, width = plane.shape
    y = np.clip((i + 0.5) * height / 3 - 0.5, 0, height - 1)
    x = np.clip((j + 0.5) * width / 5 - 0.5, 0, width - 1)
    rows = np.maximum(1 - np.abs(y - np.arange(height)), 0)
    columns = np.maximum(1 - np.abs(x - np.arange(width)), 0)
    return float(rows @ plane @ columns)
