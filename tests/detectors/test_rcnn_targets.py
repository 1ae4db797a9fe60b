import functools

import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.rcnn_targets import (
    ImageTruth,
    MatchRule,
    anchor_targets,
    region_targets,
)
from vis_jax.ops.box_coder import UNIT, UPPER, BoxCoder
from vis_jax.ops.box_matching import claim_best

CODER = BoxCoder(UNIT, UPPER)
BOXES = np.array(
    [[0.0, 0, 10, 10], [0, 0, 10, 4], [20, 0, 30, 10], [50, 50, 60, 60], [0, 0, 10, 9]]
)
TRUTH = ImageTruth(
    np.array([[0.0, 0, 10, 10], [22, 0, 30, 10], [0, 0, 0, 0]]),
    np.array([4, 1, 0]),
    np.array([True, True, False]),
)
RULE = MatchRule(0.7, 0.3, claim_best, 0.3, size=4, most_positive=2)
KEY = jax.random.key(0)


def anchors(usable, rule=RULE):
    one = functools.partial(anchor_targets, coder=CODER, rule=rule)
    return compiled(one)(KEY, BOXES, TRUTH, usable=np.array(usable))


def test_anchors_are_chosen_and_encoded():
    out = anchors([True] * 5, RULE._replace(size=5, most_positive=5))
    # Anchors 0, 2 and 4 are positive, 3 is negative, 1 is in between.
    np.testing.assert_array_equal(out.valid, [True] * 4 + [False])
    np.testing.assert_array_equal(out.positive, [True] * 3 + [False] * 2)
    assert set(out.chosen[:3].tolist()) == {0, 2, 4}
    assert int(out.chosen[3]) == 3
    deltas = {int(i): d for i, d in zip(out.chosen, out.deltas, strict=True)}
    np.testing.assert_allclose(deltas[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(deltas[2], [0.1, 0, np.log(0.8), 0], atol=1e-6)


def test_anchors_that_are_not_usable_are_never_chosen():
    out = anchors([False, True, True, False, False])
    # The best usable anchor of truth 0 overlaps it by 0.4: it is claimed.
    np.testing.assert_array_equal(out.valid, [True, True, False, False])
    assert set(out.chosen[:2].tolist()) == {1, 2}
    assert out.positive[:2].all()


def sampled(truth=TRUTH, valid=(True,) * 5, size=8, boxes=BOXES, positive=8):
    rule = MatchRule(0.5, 0.5, claim_best, 0.5, size=size, most_positive=positive)
    one = functools.partial(region_targets, num_classes=5, coder=CODER, rule=rule)
    return compiled(one)(KEY, boxes, truth, valid=np.array(valid))


def regions(*inputs, **options):
    found = sampled(*inputs, **options)
    assert not found.left_out  # there is room for all positives
    return found.targets


def test_positive_regions_beyond_the_most_are_counted():
    # Two true boxes and three proposals are positive.
    found = sampled(positive=2)
    assert int(found.targets.positive.sum()) == 2
    assert int(found.left_out) == 3


def test_regions_include_the_truth_and_know_their_label():
    out = regions()
    # Two true boxes and proposals 0, 2, 4; then 1 and 3; the padding is left out.
    np.testing.assert_array_equal(out.valid, [True] * 7 + [False])
    np.testing.assert_array_equal(out.positive, [True] * 5 + [False] * 3)
    np.testing.assert_array_equal(out.labels[5:], [5, 5, 5])
    for box, truth, label in zip(
        out.boxes[:5], out.truth[:5], out.labels[:5], strict=True
    ):
        assert int(truth) == int(box[0] >= 20)
        assert int(label) == (4, 1)[int(truth)]


def test_regions_of_an_image_without_objects_are_background():
    out = regions(TRUTH._replace(valid=np.zeros(3, bool)))
    np.testing.assert_array_equal(out.valid, [True] * 5 + [False] * 3)
    np.testing.assert_array_equal(out.labels, [5] * 8)
    assert np.isfinite(out.deltas).all()


def test_padding_among_proposals_is_never_chosen():
    out = regions(valid=(True, False, False, False, False))
    np.testing.assert_array_equal(out.valid.sum(), 3)
    assert out.positive[:3].all()


def test_a_truth_claims_its_best_proposal_though_another_overlaps_that_more():
    boxes, second = BOXES.copy(), TRUTH.boxes.copy()
    boxes[1] = 0, 2, 10, 12  # IoU 8 / 12 and 7.5 / 12.5
    second[1] = 0, 4.5, 10, 14.5
    out = regions(TRUTH._replace(boxes=second), boxes=boxes)
    rows = (out.boxes == boxes[1][None]).all(axis=1)
    assert out.truth[rows].tolist() == [1]
    assert out.labels[rows].tolist() == [1]
