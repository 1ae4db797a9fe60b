import numpy as np

from tests.compiled import compiled
from vis_jax.evaluate.views import match_to_pivot

match = compiled(match_to_pivot)


def _result(seed=0):
    """Four objects in rows of their own, with sharp masks and different classes."""
    logits = np.full((4, 2, 4, 6), -9.0, np.float32)
    logits[np.arange(4), :, np.arange(4)] = 9.0
    probs = np.random.default_rng(seed).random((4, 5)).astype(np.float32)
    return probs, logits


def test_a_copy_matches_itself():
    probs, logits = _result()
    rows = match(probs, logits, probs, logits, np.ones(2, bool))
    np.testing.assert_array_equal(rows, np.arange(4))


def test_finds_the_order_of_the_other_result():
    probs, logits = _result()
    order = np.array([2, 0, 3, 1])
    rows = match(probs, logits, probs[order], logits[order], np.ones(2, bool))
    np.testing.assert_array_equal(order[rows], np.arange(4))


def test_padded_frames_count_for_nothing():
    probs, logits = _result()
    other = logits.copy()
    other[:, 1] = np.roll(logits[:, 1], 1, axis=0)
    valid = np.array([True, False])
    rows = match(probs, logits, probs, other * 1.5, valid)
    np.testing.assert_array_equal(rows, np.arange(4))


def test_classes_decide_between_equal_masks():
    logits = np.zeros((2, 1, 3, 3), np.float32)
    probs = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32)
    rows = match(probs, logits, probs[::-1], logits, np.ones(1, bool))
    np.testing.assert_array_equal(rows, [1, 0])
