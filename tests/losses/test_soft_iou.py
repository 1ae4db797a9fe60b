import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.losses.soft_iou import soft_iou_loss

static = dict(static_argnames=("epsilon", "normalisation"))
loss = compiled(soft_iou_loss, **static)
gradient = compiled(jax.grad(soft_iou_loss), **static)

PAPER = dict(epsilon=0.0, normalisation="sum")
OURS = dict(epsilon=1.0, normalisation="mean")


def _all(masks):
    return np.ones(masks.shape[:2], bool)


def _squares():
    """Two instances in two frames: apart, and the same."""
    masks = np.zeros((2, 2, 4, 5), np.float32)
    masks[0, :, :2, :2] = masks[1, :, 2:, 3:] = 1
    return masks


def test_equal_masks_have_none_and_disjoint_ones_all():
    masks = _squares()
    np.testing.assert_allclose(loss(masks, masks, _all(masks), **PAPER), 0, atol=1e-6)
    swapped = loss(masks, masks[::-1].copy(), _all(masks), **PAPER)
    np.testing.assert_allclose(swapped, 4, atol=1e-6)  # 2 instances x 2 frames


@pytest.mark.parametrize("p", [0.3, 0.5, 0.8])
def test_of_a_constant_with_itself(p):
    masks = np.full((1, 1, 4, 5), p, np.float32)
    expected = 1 - p / (2 - p)
    found = loss(masks, masks, _all(masks), **PAPER)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["mean", "sum"])
def test_matches_the_definition(normalisation):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 2, 4, 5))
    valid = np.array([[True, True], [True, False], [False, False]])
    expected = 0.0
    for i, t in zip(*np.nonzero(valid), strict=True):
        above = sum(x * y for x, y in zip(a[i, t].flat, b[i, t].flat, strict=True))
        below = sum(
            x + y - x * y for x, y in zip(a[i, t].flat, b[i, t].flat, strict=True)
        )
        expected += 1 - (above + 0.5) / (below + 0.5)
    if normalisation == "mean":
        expected /= 2
    found = loss(
        a.astype(np.float32),
        b.astype(np.float32),
        valid,
        epsilon=0.5,
        normalisation=normalisation,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_absent_object_is_pushed_to_nothing_unless_read_literally():
    found = np.full((1, 1, 4, 5), 0.2, np.float32)
    nothing = np.zeros_like(found)
    value = loss(found, nothing, _all(found), **OURS)
    np.testing.assert_allclose(value, 1 - 1 / (20 * 0.2 + 1), rtol=1e-5)
    assert (gradient(found, nothing, _all(found), **OURS) > 0).all()
    assert loss(found, nothing, _all(found), **PAPER) == 1
    assert (gradient(found, nothing, _all(found), **PAPER) == 0).all()


@pytest.mark.parametrize("rule", [PAPER, OURS], ids=["paper", "ours"])
def test_two_empty_masks_and_padding_are_finite(rule):
    nothing = np.zeros((2, 2, 4, 5), np.float32)
    assert np.isfinite(gradient(nothing, nothing, _all(nothing), **rule)).all()
    none = np.zeros((2, 2), bool)
    assert loss(_squares(), nothing, none, **rule) == 0
    assert (gradient(_squares(), nothing, none, **rule) == 0).all()


def test_padding_changes_nothing():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 2, 2, 4, 5)).astype(np.float32)
    both = functools.partial(loss, **OURS)
    padded = both(
        np.concatenate([a, a]),
        np.concatenate([b, 1 - b]),
        np.array([[True] * 2] * 2 + [[False] * 2] * 2),
    )
    np.testing.assert_allclose(padded, both(a, b, _all(a)), rtol=1e-6)
