import jax.numpy as jnp
import numpy as np

from tests.golden.conventions import add_best
from vis_jax.ops.box_matching import claim_best, match_by_iou

# Two true boxes, a padding, and five candidates.
IOU = jnp.array(
    [
        [0.8, 0.5, 0.2, 0.0, 0.6],
        [0.1, 0.4, 0.4, 0.0, 0.35],
        [0.9, 0.9, 0.9, 0.9, 0.9],
    ]
)
VALID = jnp.array([True, True, False])


def matched():
    return match_by_iou(IOU, VALID, positive=0.7, negative=0.3)


def check(matching, truth, positive, negative):
    np.testing.assert_array_equal(matching.truth, truth)
    np.testing.assert_array_equal(matching.positive, np.array(positive, bool))
    np.testing.assert_array_equal(matching.negative, np.array(negative, bool))


def test_thresholds_leave_a_gap_that_is_ignored():
    check(matched(), [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0])


def test_best_candidates_keep_their_own_truth():
    # Truth 1 reaches 0.4 at candidates 1 and 2; candidate 1 overlaps truth 0 more.
    best = add_best(matched(), IOU, VALID, least=0.0)
    check(best, [0, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0])


def test_claimed_candidates_change_their_truth():
    claimed = claim_best(matched(), IOU, VALID, least=0.3)
    check(claimed, [0, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0])
    check(claim_best(matched(), IOU, VALID, least=0.45), *matched())


def test_without_truth_everything_is_negative():
    none = jnp.zeros(3, bool)
    empty = match_by_iou(IOU, none, positive=0.5, negative=0.5)
    for matching in (
        empty,
        add_best(empty, IOU, none, least=0.0),
        claim_best(empty, IOU, none, least=0.0),
    ):
        check(matching, [0] * 5, [0] * 5, [1] * 5)


def test_a_truth_without_overlap_adds_nothing():
    iou = jnp.zeros((1, 4))
    valid = jnp.ones(1, bool)
    matching = match_by_iou(iou, valid, positive=0.7, negative=0.3)
    assert not add_best(matching, iou, valid, least=0.0).positive.any()
