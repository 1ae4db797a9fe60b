import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.soft_overlap import soft_iou, soft_iou_frames, soft_match_cost

iou = compiled(soft_iou)
match_cost = compiled(soft_match_cost)
frames_of = compiled(soft_iou_frames)


def _tubes(count, seed, frames=3):
    rng = np.random.default_rng(seed)
    return rng.random((count, frames, 4, 5)).astype(np.float32)


def test_of_binary_tubes_it_is_the_iou():
    a, b = np.zeros((2, 1, 2, 2, 2), np.float32)
    a[0, 0] = b[0, 0] = 1.0  # frame 0: 4 of 4 pixels shared
    a[0, 1, 0, 0] = b[0, 1, 1, 1] = 1.0  # frame 1: 0 of 2
    found = iou(a, b, np.ones((1, 2), bool))
    np.testing.assert_allclose(found, [[4 / 6]], rtol=1e-5)
    first = iou(a, b, np.array([[True, False]]))
    np.testing.assert_allclose(first, [[1.0]], rtol=1e-5)


def test_iou_matches_the_definition():
    a, b = _tubes(2, 0), _tubes(4, 1)
    shared = np.array([[True, False, True], [False, False, False]])
    expected = np.zeros((2, 4))
    for i, j in np.ndindex(2, 4):
        x, y = a[i, shared[i]], b[j, shared[i]]
        expected[i, j] = (x * y).sum() / ((x + y - x * y).sum() + 1e-6)
    np.testing.assert_allclose(iou(a, b, shared), expected, atol=1e-5)


@pytest.mark.parametrize("frames", [[True, False, True], [True, True, True]])
def test_cost_matches_the_definition(frames):
    logits, truth = 8 * _tubes(3, 2) - 4, _tubes(2, 3)
    shared = np.array([frames, [False, True, False]])
    expected = np.zeros((3, 2))
    for i, j in np.ndindex(3, 2):
        x, y = logits[i, shared[j]].astype(np.float64), truth[j, shared[j]]
        p = 1 / (1 + np.exp(-x))
        bce = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
        dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        expected[i, j] = 5 * bce + 5 * (1 - dice)
    np.testing.assert_allclose(match_cost(logits, truth, shared), expected, rtol=1e-5)


def test_of_each_frame_by_itself():
    a, b = _tubes(2, 4), _tubes(5, 5)
    found = frames_of(a, b)
    for i, j, t in np.ndindex(2, 5, 3):
        x, y = a[i, t].astype(np.float64), b[j, t].astype(np.float64)
        union = (x + y - x * y).sum()
        np.testing.assert_allclose(
            found.intersection[i, j, t], (x * y).sum(), rtol=1e-5
        )
        np.testing.assert_allclose(found.union[i, j, t], union, rtol=1e-5)
        np.testing.assert_allclose(
            found.iou()[i, j, t], (x * y).sum() / union, rtol=1e-5
        )


@pytest.mark.parametrize("p", [0.5, 0.8, 1.0])
def test_of_a_constant_with_itself(p):
    """Even equal masks have less than 1 unless they are sure: p / (2 - p)."""
    a = np.full((1, 2, 4, 5), p, np.float32)
    np.testing.assert_allclose(frames_of(a, a).iou(), p / (2 - p), rtol=1e-5)


def test_two_empty_frames_share_nothing():
    a, b = _tubes(1, 6), _tubes(2, 7)
    a[:, 1] = b[1, 1] = 0
    found = frames_of(a, b)
    assert (found.iou()[:, :, 1] == 0).all()
    np.testing.assert_allclose(found.union[0, 1, 1], 0, atol=1e-6)
    assert found.union[0, 0, 1] > 1
