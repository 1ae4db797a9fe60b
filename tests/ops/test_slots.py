import numpy as np

from tests.compiled import compiled
from vis_jax.ops.nms import group_duplicates

group = compiled(group_duplicates, static_argnames="iou_threshold")


def _rows(*spans):
    """One mask for each (first, last) of ten pixels."""
    masks = np.zeros((len(spans), 1, 10), bool)
    for mask, (first, last) in zip(masks, spans, strict=True):
        mask[0, first:last] = True
    return masks


def test_the_best_detection_takes_in_what_overlaps_it():
    # 0 and 2 share 7 of 10 pixels, which is enough; 1 lies elsewhere.
    masks = _rows((0, 7), (8, 10), (0, 10))
    scores = np.array([0.5, 0.6, 0.9])
    assert list(group(masks, scores, np.ones(3, bool), iou_threshold=0.7)) == [2, 1, 2]
    assert list(group(masks, scores, np.ones(3, bool), iou_threshold=0.8)) == [0, 1, 2]


def test_slots_do_not_grow_by_their_members():
    # 1 overlaps both others by 8 of 10; these share 6 of 10 and stay apart unless 1 is
    # the best.
    masks = _rows((0, 8), (0, 10), (2, 10))
    valid = np.ones(3, bool)
    chain = group(masks, np.array([0.9, 0.8, 0.7]), valid, iou_threshold=0.7)
    assert list(chain) == [0, 0, 2]
    star = group(masks, np.array([0.8, 0.9, 0.7]), valid, iou_threshold=0.7)
    assert list(star) == [1, 1, 1]


def test_padding_and_empty_masks_have_slots_of_their_own():
    masks = _rows((0, 5), (0, 5), (0, 0), (0, 0))
    scores = np.array([0.1, 0.9, 0.5, 0.5])
    valid = np.array([True, False, True, True])
    slots = group(masks, scores, valid, iou_threshold=0.7)
    assert list(slots) == [0, 1, 2, 3]


def test_equal_scores_go_by_place():
    masks = _rows((0, 5), (0, 5), (0, 5))
    slots = group(masks, np.full(3, 0.5), np.ones(3, bool), iou_threshold=0.7)
    assert list(slots) == [0, 0, 0]
