import jax
import numpy as np
import pytest

from vis_jax.evaluate.clips import bucket
from vis_jax.evaluate.masks import (
    Sizes,
    frame_masks,
    resize_matrix,
    stretched,
    upsample,
)
from vis_jax.ops.masks import stretch_masks
from vis_jax.structures import Predictions


def _resize(x, size):
    """Bilinear resize of [h, w] by JAX, which holds the same formula."""
    return np.asarray(jax.image.resize(x, size, "bilinear", antialias=False))


def test_a_matrix_of_equal_sizes_is_the_identity():
    np.testing.assert_array_equal(resize_matrix(4, 4, 4, 4), np.eye(4))


def test_rows_of_the_matrix_are_means():
    matrix = resize_matrix(8, 32, 27, 45)
    assert (matrix.shape, matrix.dtype) == ((45, 8), np.float32)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("original", [(37, 50), (11, 13)])
def test_is_enlarge_crop_resize(original):
    canvas, content = (32, 32), (24, 29)
    logits = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    rows = resize_matrix(8, canvas[0], content[0], original[0])
    columns = resize_matrix(8, canvas[1], content[1], original[1])
    found = np.asarray(upsample(logits, rows, columns))
    assert (found.shape, found.dtype) == ((2, 3, *original[::-1]), np.uint8)
    for track, frame in ((0, 0), (1, 2)):
        large = _resize(logits[track, frame], canvas)[: content[0], : content[1]]
        expected = _resize(large, original)
        clear = np.abs(expected) > 1e-5  # rounding may turn a sign at zero
        masks = found[track, frame].T
        np.testing.assert_array_equal(masks[clear], (expected > 0)[clear])


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 8), (8, 8), (9, 24), (24, 24), (25, 48), (49, 72)]
)
def test_the_least_bucket_or_a_multiple_of_the_largest(length, expected):
    assert bucket(length, (24, 8)) == expected


def test_masks_over_boxes_come_at_the_original_size():
    logits = np.full((3, 2, 2, 2), 1.0, np.float32)
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[0, 0] = 4, 2, 8, 6  # pixels of the canvas
    boxes[2, 0] = 0, 0, 2, 2
    boxes[2, 1] = 0, 0, 16, 8
    none = np.zeros(3, np.int32)
    found = Predictions(np.zeros((3, 1)), none, none > 0, logits, boxes)
    sizes = Sizes(canvas=(32, 32), content=(8, 16), original=(16, 48))
    keep = np.array([0, 2])
    first, second = frame_masks(found, sizes, keep=keep, count=2, at_once=1)
    assert (first.rows.tolist(), second.rows.tolist()) == ([0, 2], [2])
    expected = np.zeros((2, 48, 16), np.uint8)  # [W, H], 3 times as wide, twice as high
    expected[0, 12:24, 4:12] = 1
    expected[1, :6, :4] = 1
    np.testing.assert_array_equal(first.masks, expected)
    assert second.masks.shape == (1, 48, 16)
    assert second.masks.all()
    (nothing,) = frame_masks(found, sizes, keep=keep[:0], count=1, at_once=1)
    assert nothing.masks.shape == (0, 48, 16)


def test_masks_are_those_of_the_op():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 5, 4)).astype(np.float32)
    corners = rng.uniform(-3, 30, (20, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    boxes[0] = 7, 7, 7, 9  # empty
    size = (21, 26)
    expected = np.asarray(
        jax.jit(stretch_masks, static_argnames="size")(values, boxes, size=size)
    )
    found = stretched(values, boxes, size).swapaxes(1, 2)
    clear = np.abs(expected) > 1e-5  # rounding may turn a sign at zero
    np.testing.assert_array_equal(found[clear], (expected > 0)[clear])
    assert not found[expected == 0].any()
