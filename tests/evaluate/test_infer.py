import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.evaluate.masks import (
    Sizes,
    frame_masks,
    resize_matrix,
    stretched,
    upsample,
)
from vis_jax.ops.bilinear import aligned_upsample
from vis_jax.ops.masks import stretch_masks
from vis_jax.structures import Predictions, Render


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
    logits = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    rows = resize_matrix(8, canvas[0], content[0], original[0])
    columns = resize_matrix(8, canvas[1], content[1], original[1])
    found = np.asarray(upsample(logits, rows, columns))
    assert (found.shape, found.dtype) == ((3, 2, *original[::-1]), np.uint8)
    for frame, track in ((0, 0), (2, 1)):
        large = _resize(logits[frame, track], canvas)[: content[0], : content[1]]
        expected = _resize(large, original)
        clear = np.abs(expected) > 1e-5  # rounding may turn a sign at zero
        masks = found[frame, track].T
        np.testing.assert_array_equal(masks[clear], (expected > 0)[clear])


def _predictions(slots, logits, boxes=None):
    """Masks of tracks, the third of which is not valid."""
    return Predictions(
        class_probs=np.full((4, 1), 0.5, np.float32),
        track_ids=np.array([7, 8, 9, 6], np.int32),
        valid=np.array([True, True, False, True]),
        slots=np.asarray(slots, np.int32),
        mask_logits=np.asarray(logits, np.float32),
        mask_boxes=None if boxes is None else np.asarray(boxes, np.float32),
    )


def test_masks_over_boxes_come_at_the_original_size():
    boxes = np.zeros((2, 3, 4))
    boxes[0, 0] = 4, 2, 8, 6  # pixels of the canvas
    boxes[0, 1] = 0, 0, 2, 2
    boxes[1, 0] = 0, 0, 16, 8
    boxes[1, 2] = 0, 0, 16, 8  # of a track that is not valid
    slots = [[1, 0, -1], [0, 1, 2]]  # the box of the last but one is empty
    found = _predictions(slots, np.ones((2, 3, 2, 2)), boxes)
    sizes = Sizes(canvas=(32, 32), content=(8, 16), original=(16, 48))
    first, second = frame_masks(found, sizes, Render(), rows=range(2), at_once=1)
    assert (first.objects.tolist(), second.objects.tolist()) == ([0, 1], [0])
    expected = np.zeros((2, 48, 16), np.uint8)  # [W, H], 3 times as wide, twice as high
    expected[0, 12:24, 4:12] = 1
    expected[1, :6, :4] = 1
    np.testing.assert_array_equal(first.masks, expected)
    assert second.masks.shape == (1, 48, 16)
    assert second.masks.all()
    none = found._replace(slots=np.full((2, 3), -1, np.int32))
    (nothing,) = frame_masks(none, sizes, Render(), rows=range(1), at_once=1)
    assert nothing.masks.shape == (0, 48, 16)


def _columns(values):
    """Logits [F, D, 2, 4] whose columns have these values."""
    return np.repeat(np.asarray(values, np.float32)[:, :, None], 2, axis=2)


def _shown(render, boxed, rows=range(2)):
    """Columns 0 .. 3 of two frames that each mask has, by the number of the mask."""
    logits = _columns([
        [[3, 3, -1, -1], [1, 4, 4, -1], [9, 9, 9, 9], [8, 8, 8, 8]],
        [[1, 2, 2, 2], [5, 1, -1, -1], [9, 9, 9, 9], [8, 8, 8, 8]],
    ])  # fmt: skip
    # The third is of a track that is not valid, the last of none.
    slots = [[1, 0, 2, -1]] * 2
    boxes = np.tile([0, 0, 4, 2], (2, 4, 1)) if boxed else None
    found = _predictions(slots, logits, boxes)
    sizes = Sizes((2, 4), (2, 4), (2, 4))
    frames = frame_masks(found, sizes, render, rows=rows, at_once=1)
    return [
        {i: np.flatnonzero(mask[:, 0]).tolist() for i, mask in zip(*one, strict=True)}
        for one in frames
    ]


@pytest.mark.parametrize("boxed", [False, True])
def test_how_masks_that_overlap_become_pixels(boxed):
    """Two masks; the canvas has one cell per pixel."""
    both = [{0: [0, 1], 1: [0, 1, 2]}, {0: [0, 1, 2, 3], 1: [0, 1]}]
    assert _shown(Render(), boxed) == both
    assert _shown(Render(), boxed, range(1, 2)) == both[1:]
    largest = [{0: [0], 1: [1, 2]}, {0: [1, 2, 3], 1: [0]}]
    assert _shown(Render("argmax"), boxed) == largest
    assert _shown(Render("argmax"), boxed, range(1, 2)) == largest[1:]
    # In the second frame nothing is left of the mask behind.
    assert _shown(Render("rank"), boxed) == [{0: [0, 1], 1: [2]}, {0: [0, 1, 2, 3]}]
    # In the first, a third of it.
    shown = _shown(Render("rank", 0.4), boxed)
    assert shown == [{0: [0, 1]}, {0: [0, 1, 2, 3]}]


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


def test_aligned_cells_are_enlarged_by_the_operator_of_that_name():
    canvas, content, original = (32, 24), (27, 24), (40, 31)
    values = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    axes = zip((8, 6), canvas, content, original, strict=True)
    rows, columns = (resize_matrix(*axis, aligned=True) for axis in axes)
    large = np.asarray(aligned_upsample(jnp.asarray(values)[..., None], 4))[..., 0]
    expected = _resize(large[: content[0], : content[1]], original)
    np.testing.assert_allclose(rows @ values @ columns.T, expected, atol=1e-5)
