import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.rpn import RPN, ProposalRule, propose
from vis_jax.ops.box_coder import UNIT, UPPER, BoxCoder

# Two levels: three anchors of which two overlap, and one that overlaps both.
ANCHORS = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9]])
LOGITS = np.array([1.0, 2.0, -1.0, 0.0])
RULE = ProposalRule(before=3, size=4, iou_threshold=0.7, least_side=1.0)


def run(logits=LOGITS, deltas=None, size=(40, 40), rule=RULE):
    one = functools.partial(
        propose, counts=(3, 1), coder=BoxCoder(UNIT, UPPER), rule=rule
    )
    return compiled(one)(
        logits,
        np.zeros((4, 4)) if deltas is None else deltas,
        ANCHORS,
        image_size=np.array(size),
    )


def test_suppresses_within_a_level_only():
    out = run()
    np.testing.assert_array_equal(out.valid, [True, True, True, False])
    np.testing.assert_array_equal(out.logits, [2, 0, -1, 0])
    np.testing.assert_array_equal(out.boxes[:2], ANCHORS[np.array([1, 3])])
    assert not out.boxes[3].any()


def test_boxes_end_at_the_content_and_what_is_outside_goes():
    out = run(size=(5, 8))
    np.testing.assert_array_equal(out.valid, [True, True, False, False])
    np.testing.assert_array_equal(out.boxes[0], [1, 0, 8, 5])


def test_looks_at_the_best_of_each_level():
    out = run(rule=RULE._replace(before=1, size=2))
    np.testing.assert_array_equal(out.boxes, ANCHORS[np.array([1, 3])])
    with pytest.raises(ValueError, match="expected 1 .. 2 boxes, got 4"):
        run(rule=RULE._replace(before=1))


def test_no_gradient_flows_through_proposals():
    def total(deltas, *inputs):
        found = propose(
            inputs[0], deltas, inputs[1], image_size=inputs[2],
            counts=(3, 1), coder=BoxCoder(UNIT, UPPER), rule=RULE,
        )  # fmt: skip
        return found.boxes.sum()

    size = np.array((40, 40))
    gradient = compiled(jax.grad(total))(np.zeros((4, 4)), LOGITS, ANCHORS, size)
    assert not gradient.any()


def test_outputs_are_in_the_order_of_the_anchors():
    """A cell that alone is not zero marks its own three anchors."""
    model = RPN(dim=4, ratios=3)
    fine, coarse = np.zeros((1, 6, 8, 2)), np.zeros((1, 3, 4, 2))
    variables = compiled(model.init)(jax.random.key(0), [fine, coarse])
    coarse[0, 1, 2] = 1.0
    out = compiled(model.apply)(variables, [fine, coarse])
    changed = np.flatnonzero(out.deltas[0].any(axis=-1))
    assert out.objectness_logits.shape == (1, 3 * (48 + 12))
    assert set(3 * (48 + 1 * 4 + 2) + np.arange(3)) <= set(changed)
    assert changed.min() >= 3 * 48
