import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.losses.mask import (
    pairwise_bce,
    pairwise_dice,
    point_bce,
    point_dice,
    squared_dice,
)

_LOSSES = (point_bce, point_dice, pairwise_bce, pairwise_dice)
_bce, _dice, _pair_bce, _pair_dice = map(compiled, _LOSSES)


def test_undecided_points():
    logits = np.zeros((1, 4), np.float32)
    targets = np.array([[1, 0, 0, 1]], np.float32)
    np.testing.assert_allclose(_bce(logits, targets), [np.log(2)], rtol=1e-6)
    # 1 - (2 * 1 + 1) / (2 + 2 + 1)
    np.testing.assert_allclose(_dice(logits, targets), [0.4], rtol=1e-6)


def test_empty_and_predicted_empty_cost_nothing():
    logits, targets = np.full((1, 5), -50, np.float32), np.zeros((1, 5), np.float32)
    np.testing.assert_allclose(_bce(logits, targets), [0], atol=1e-6)
    np.testing.assert_allclose(_dice(logits, targets), [0], atol=1e-6)


def test_points_and_pairs_are_the_formulas():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(4, 9)).astype(np.float32)
    targets = rng.random((3, 9), np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for q, m in np.ndindex(4, 3):
        x, g = p[q], targets[m]
        bce = -np.mean(g * np.log(x) + (1 - g) * np.log(1 - x))
        dice = 1 - (2 * (x * g).sum() + 1) / (x.sum() + g.sum() + 1)
        np.testing.assert_allclose(_pair_bce(logits, targets)[q, m], bce, rtol=1e-4)
        np.testing.assert_allclose(_pair_dice(logits, targets)[q, m], dice, rtol=1e-4)
        if q == m:
            np.testing.assert_allclose(_bce(logits[:3], targets)[m], bce, rtol=1e-4)
            np.testing.assert_allclose(_dice(logits[:3], targets)[m], dice, rtol=1e-4)


def test_squared_dice_is_the_formula():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(4, 9)).astype(np.float32)
    targets = (rng.random((4, 9)) < 0.4).astype(np.float32)
    targets[3] = 0
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    squares = (p**2).sum(axis=1) + (targets**2).sum(axis=1) + 1e-5
    expected = 1 - 2 * (p * targets).sum(axis=1) / squares
    found = compiled(squared_dice)(logits, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_large_logits_stay_finite_with_their_gradients():
    logits = np.array([[1e4, -1e4, 0.0]], np.float32)
    targets = np.array([[0.0, 1.0, 0.5]], np.float32)
    for loss in (point_bce, point_dice, squared_dice):
        both = compiled(jax.value_and_grad(lambda x, y, f=loss: f(x, y).sum()))
        for values in both(logits, targets):
            assert np.isfinite(values).all()
