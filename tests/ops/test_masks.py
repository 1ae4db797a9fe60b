import functools
import itertools

import jax
import numpy as np

from tests.compiled import compiled
from tests.ops.one_map import roi_align
from vis_jax.ops.masks import (
    crop_masks,
    inside_boxes,
    paste_in_whole_pixels,
    paste_masks,
    paste_on_level,
    stretch_masks,
)
from vis_jax.ops.roi_align import ALIGNED, UNALIGNED

crop = compiled(crop_masks, static_argnames=("side", "convention"))
paste = compiled(paste_masks, static_argnames="size")
paste_whole = compiled(paste_in_whole_pixels, static_argnames="size")
paste_level = compiled(paste_on_level, static_argnames=("size", "stride"))
stretch = compiled(stretch_masks, static_argnames="size")


def test_cells_hold_the_share_of_the_mask():
    masks = np.zeros((2, 8, 8), bool)
    masks[1, 2:6, 2:5] = True  # of the box: three of four columns
    boxes = np.array([[2.0, 2, 6, 6], [0, 0, 8, 8]])
    index = np.array([1, 1])
    ours = crop(masks, boxes, index, side=2, convention=ALIGNED)
    np.testing.assert_allclose(ours[0], [[1, 0.5], [1, 0.5]], atol=1e-6)
    # Each quarter of the image has 2 rows of the mask, and 2 or 1 of its columns.
    np.testing.assert_allclose(ours[1], [[1 / 4, 1 / 8]] * 2, atol=1e-6)


def test_is_roi_align_with_a_point_for_every_pixel():
    rng = np.random.default_rng(0)
    masks = rng.random((1, 24, 32)) < 0.5
    # Cells of 3 x 3 pixels or a little less.
    boxes = np.array([[3.3, 1.2, 15.1, 13.1], [20.0, 11, 32, 23]])
    for convention in (ALIGNED, UNALIGNED):
        ours = crop(masks, boxes, np.zeros(2, int), side=4, convention=convention)
        read = functools.partial(
            roi_align, scale=1.0, size=(4, 4), samples=3, convention=convention
        )
        expected = compiled(read)(masks[0, :, :, None].astype(np.float32), boxes)
        np.testing.assert_allclose(ours, expected[..., 0], atol=1e-5)


def test_an_empty_box_is_finite():
    masks = np.ones((1, 8, 8), bool)
    for convention in (ALIGNED, UNALIGNED):
        ours = crop(
            masks,
            np.zeros((1, 4)),
            np.zeros(1, int),
            side=4,
            convention=convention,
        )
        assert np.isfinite(ours).all()


def test_pasted_cells_lie_on_their_pixels():
    values = np.array([[[1.0, 2], [3, 4]]] * 3)
    boxes = np.array([[1.0, 1, 3, 3], [2, 0, 6, 2], [3, 3, 3, 3]])
    ours = paste(values, boxes, size=(4, 6))
    same = np.zeros((4, 6))
    same[1:3, 1:3] = [[1, 2], [3, 4]]
    np.testing.assert_allclose(ours[0], same, atol=1e-6)
    # Twice as wide: between the cells a mean, beyond them less and less.
    wide = [[0, 0.25, 0.75, 1.25, 1.75, 1.5], [0, 0.75, 2.25, 3.25, 3.75, 3]]
    np.testing.assert_allclose(ours[1, :2], wide, atol=1e-6)
    assert not ours[1, 2:].any()
    assert not ours[2].any()


def test_what_is_cropped_is_pasted_back():
    masks = np.zeros((1, 16, 20), bool)
    masks[0, 4:12, 6:14] = True
    boxes = np.array([[2.0, 2, 18, 14]])
    cropped = crop(masks, boxes, np.zeros(1, int), side=28, convention=ALIGNED)
    np.testing.assert_array_equal(paste(cropped, boxes, size=(16, 20)) >= 0.5, masks)


def test_stretched_values_fill_their_box_and_nothing_else():
    values = np.array([[[1.0, -1.0]], [[3.0, 3.0]]], np.float32)
    boxes = np.array([[1, 0, 5, 2], [2, 2, 2, 2]], np.float32)
    found = stretch(values, boxes, size=(3, 6))
    # Cells are two pixels wide: their centres lie at columns 2 and 4.
    row = [0, 1, 0.5, -0.5, -1, 0]
    np.testing.assert_allclose(found[0], [row, row, [0] * 6], atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)  # an empty box


def test_a_stretched_box_is_a_resize():
    values = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    box = np.array([[2, 1, 13, 10]], np.float32)
    found = stretch(values, box, size=(12, 15))[0]
    expected = jax.image.resize(values[0], (9, 11), "bilinear", antialias=False)
    np.testing.assert_allclose(found[1:10, 2:13], expected, atol=1e-5)


def test_masks_are_enlarged_to_whole_pixels_with_a_border_of_zeros():
    """Step by step, as torchvision does it."""
    rng = np.random.default_rng(0)
    probs = rng.random((3, 4, 4)).astype(np.float32)
    boxes = np.array([[3.2, 2.1, 11.7, 9.4], [-2, -3, 5.5, 4], [9, 7, 9.2, 30]])
    ours = paste_whole(probs, boxes.astype(np.float32), size=(12, 14))
    for values, box, found in zip(probs, boxes, ours, strict=True):
        padded = np.pad(values, 1)
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * 6 / 4
        x, y = (middle - half).astype(int)
        wide, high = (middle + half).astype(int) - [x, y] + 1
        expected = np.zeros((12, 14))
        for row, column in np.ndindex(12, 14):
            if not (0 <= row - y < high and 0 <= column - x < wide):
                continue
            at = [(row - y + 0.5) * 6 / high - 0.5, (column - x + 0.5) * 6 / wide - 0.5]
            at = np.clip(at, 0, 5)
            weights = [np.maximum(1 - np.abs(a - np.arange(6)), 0) for a in at]
            expected[row, column] = weights[0] @ padded @ weights[1]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cells_inside_boxes_are_told_by_their_corner():
    boxes = np.array([[8, 4, 16, 12], [7.9, 0, 16.1, 64], [0, 0, 0, 0]], np.float32)
    of = compiled(inside_boxes, static_argnums=(1, 2), static_argnames="margin")
    ours = of(boxes, (8, 6), (32, 48), margin=0.0)  # cells of 4 x 8 pixels
    expected = np.zeros((3, 8, 6), bool)
    expected[0, 1:3, 1:2] = True
    expected[1, :, 1:3] = True
    np.testing.assert_array_equal(ours, expected)
    wide = of(boxes, (8, 6), (32, 48), margin=1.0)
    expected[0, 0:4, 0:3], expected[1, :, 0:4] = True, True
    expected[2, 0, 0] = True
    np.testing.assert_array_equal(wide, expected)


def test_whole_cells_of_a_level_are_filled_exactly():
    """Property 14: boxes of k x k cells, up to one cell of the level for two of 28."""
    count = 14
    sides = 8 * np.arange(1, count + 1, dtype=np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    ours = paste_level(np.ones((count, 28, 28)), boxes, size=(16, 18), stride=8)
    for k, found in enumerate(ours, start=1):
        expected = np.zeros((16, 18))
        expected[:k, :k] = 1
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_edge_through_the_middle_of_a_cell_of_a_level():
    ones = np.ones((1, 28, 28))
    box = np.array([[12.0, 8, 32, 24]])  # x1 at the centre of column 1
    ours = paste_level(ones, box, size=(4, 6), stride=8)[0]
    expected = np.zeros((4, 6))
    expected[1:3, 1:4] = [0.5, 1, 1]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_quadrant_lands_in_its_quadrant_of_a_level():
    probs = np.zeros((1, 28, 28))
    probs[0, :14, 14:] = 1  # above right
    ours = paste_level(probs, np.array([[0.0, 0, 64, 64]]), size=(8, 8), stride=8)[0]
    expected = np.zeros((8, 8))
    expected[:4, 4:] = 1
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_cell_of_a_level_is_the_mean_of_its_quarter_points():
    rng = np.random.default_rng(0)
    probs = rng.random((2, 28, 28))
    boxes = np.array([[3.0, 9, 51, 30], [-20, -10, 70, 60]])
    ours = paste_level(probs, boxes, size=(5, 7), stride=8)
    for r, v, u in np.ndindex(2, 5, 7):
        x1, y1, x2, y2 = boxes[r]
        total = 0.0
        for y, x in itertools.product((8 * v + 2, 8 * v + 6), (8 * u + 2, 8 * u + 6)):
            a, b = ((y - y1) / (y2 - y1) * 28 - 0.5, (x - x1) / (x2 - x1) * 28 - 0.5)
            for i, j in np.ndindex(28, 28):
                weight = max(1 - abs(a - i), 0) * max(1 - abs(b - j), 0)
                total += weight * probs[r, i, j]
        np.testing.assert_allclose(ours[r, v, u], total / 4, atol=1e-5)
