import numpy as np

from tests.compiled import compiled
from vis_jax.ops.box_matching import add_best, claim_best, match_by_iou

# Two true boxes, a padding, and five candidates.
IOU = np.array(
    [
        [0.8, 0.5, 0.2, 0.0, 0.6],
        [0.1, 0.4, 0.4, 0.0, 0.35],
        [0.9, 0.9, 0.9, 0.9, 0.9],
    ]
)
VALID = np.array([True, True, False])
_match = compiled(match_by_iou, static_argnames=("positive", "negative"))
_add, _claim = (compiled(f, static_argnames="least") for f in (add_best, claim_best))


def matched():
    return _match(IOU, VALID, positive=0.7, negative=0.3)


def check(matching, truth, positive, negative):
    np.testing.assert_array_equal(matching.truth, truth)
    np.testing.assert_array_equal(matching.positive, np.array(positive, bool))
    np.testing.assert_array_equal(matching.negative, np.array(negative, bool))


def test_thresholds_leave_a_gap_that_is_ignored():
    check(matched(), [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0])


def test_best_candidates_keep_their_own_truth():
    # Truth 1 reaches 0.4 at candidates 1 and 2; candidate 1 overlaps truth 0 more.
    best = _add(matched(), IOU, VALID, least=0.0)
    check(best, [0, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0])


def test_claimed_candidates_change_their_truth():
    claimed = _claim(matched(), IOU, VALID, least=0.3)
    check(claimed, [0, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0])
    check(_claim(matched(), IOU, VALID, least=0.45), *matched())


def test_without_truth_everything_is_negative():
    none = np.zeros(3, bool)
    empty = _match(IOU, none, positive=0.5, negative=0.5)
    for matching in (
        empty,
        _add(empty, IOU, none, least=0.0),
        _claim(empty, IOU, none, least=0.0),
    ):
        check(matching, [0] * 5, [0] * 5, [1] * 5)


def test_a_truth_without_overlap_adds_nothing():
    iou = np.zeros((1, 4))
    valid = np.ones(1, bool)
    matching = _match(iou, valid, positive=0.7, negative=0.3)
    assert not _add(matching, iou, valid, least=0.0).positive.any()
