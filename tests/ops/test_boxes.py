import numpy as np

from tests.compiled import compiled
from tests.golden.cases import load
from vis_jax.ops.boxes import (
    at_least,
    box_area,
    box_iou,
    clip_boxes,
    from_cxcywh,
    generalized_box_iou,
    to_cxcywh,
)

iou, clip = compiled(box_iou), compiled(clip_boxes)


def test_iou_of_drawn_boxes():
    a = np.array([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    b = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [9, 9, 8, 8], [5, 5, 5, 5]])
    # 2 of 6 pixels shared; the same box; inverted; empty.
    np.testing.assert_allclose(iou(a, b), [[1 / 3, 1, 0, 0], [0] * 4], rtol=1e-6)


def test_inclusive_corners_are_one_more_pixel():
    # 0 .. 1 and 1 .. 2 with their end pixels: one column of three shared.
    inclusive = np.array([[0.0, 0, 1, 1], [1, 0, 2, 1]])
    ours = inclusive + np.array([[0.0, 0, 1, 1]])
    np.testing.assert_allclose(iou(ours, ours)[0, 1], 1 / 3, rtol=1e-6)


def test_clips_to_width_and_height():
    boxes = np.array([[-3.0, -2, 50, 60], [4, 5, 6, 7]])
    clipped = clip(boxes, np.array([20, 30]))
    np.testing.assert_array_equal(clipped, [[0, 0, 30, 20], [4, 5, 6, 7]])
    np.testing.assert_array_equal(
        compiled(at_least, static_argnums=1)(clipped, 3.0), [True, False]
    )
    np.testing.assert_array_equal(compiled(box_area)(clipped), [600, 4])


def test_forms_invert_each_other():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-9, 9, (2, 5, 4)).astype(np.float32)
    again = compiled(lambda x: from_cxcywh(to_cxcywh(x)))(boxes)
    np.testing.assert_allclose(again, boxes, atol=1e-5)


def test_matches_stored_ious_of_torchvision():
    case = load("ops")
    boxes = case.arrays["nms/boxes"]
    stored = np.nan_to_num(case.arrays["box_iou/output"])  # 0 / 0 is 0 with us
    np.testing.assert_allclose(iou(boxes, boxes), stored, atol=1e-6)


def test_generalized_iou_falls_with_the_distance():
    boxes = np.array([[0.0, 0, 2, 2], [2, 0, 4, 2], [6, 0, 8, 2], [1, 1, 1, 1]])
    ours = compiled(generalized_box_iou)(boxes[:1], boxes)[0]
    # Enclosed by 8 and 16 pixels, of which 8 each are covered; by 4, all covered.
    np.testing.assert_allclose(ours, [1, 0, -0.5, 0], atol=1e-6)
    empty = np.array([[1.0, 1, 1, 1]])
    assert compiled(generalized_box_iou)(empty, empty) == 0
