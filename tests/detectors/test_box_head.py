import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.box_head import (
    BoxHead,
    DetectRule,
    SharedBoxHead,
    detect,
    detect_shared,
)
from vis_jax.ops.box_coder import ROI, UPPER, BoxCoder

REGIONS = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
RULE = DetectRule(score_threshold=0.05, iou_threshold=0.5, least_side=0.0, size=5)


def run(probs, valid=(True, True, True), size=(40, 40), rule=RULE):
    one = functools.partial(detect, coder=BoxCoder(ROI, UPPER), rule=rule)
    with np.errstate(divide="ignore"):  # some are 0
        logits = np.log(np.array(probs))
    return compiled(one)(
        logits,
        np.zeros((3, 2, 4)),
        REGIONS,
        valid=np.array(valid),
        image_size=np.array(size),
    )


# Classes 0 and 1, background.
PROBS = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.01, 0.02, 0.97]]


def test_one_box_may_be_found_under_two_classes():
    out = run(PROBS)
    np.testing.assert_array_equal(out.valid, [True, True, False, False, False])
    np.testing.assert_allclose(out.scores[:2], [0.6, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(out.labels, [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(out.boxes[:2], REGIONS[:2])
    assert not out.boxes[2:].any()


def test_padding_is_never_found():
    out = run(PROBS, valid=(False, False, True))
    assert not out.valid.any()
    np.testing.assert_array_equal(out.labels, [2] * 5)


def test_boxes_end_at_the_content():
    out = run([[0.1, 0.1, 0.8]] * 2 + [[0.9, 0.05, 0.05]], size=(25, 40))
    np.testing.assert_allclose(out.boxes[0], [20, 20, 30, 25], rtol=1e-6)
    small = run(
        [[0.0, 0.0, 1.0]] * 2 + [[0.9, 0.0, 0.1]],
        size=(25, 40),
        rule=RULE._replace(least_side=6.0),
    )
    assert not small.valid.any()


def test_head_takes_any_leading_axes():
    head = BoxHead(num_classes=3, width=8, dtype=jnp.bfloat16)
    pooled = jax.ShapeDtypeStruct((2, 5, 7, 7, 4), jnp.bfloat16)
    out, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), pooled)
    assert out.class_logits.shape == (2, 5, 4)
    assert out.deltas.shape == (2, 5, 3, 4)
    assert out.deltas.dtype == jnp.float32
    assert variables["params"]["fc1"]["kernel"].shape == (7, 7, 4, 8)


def random_regions(count=12, classes=3):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 20, (count, 2))], axis=1)
    logits = rng.normal(size=(count, classes + 1)) * 2
    valid = rng.random(count) < 0.8
    return logits.astype(np.float32), boxes.astype(np.float32), valid


def test_one_box_for_all_classes_is_as_one_box_each():
    logits, boxes, valid = random_regions()
    rule = RULE._replace(size=20, iou_threshold=0.3, least_side=6.0)
    each = compiled(functools.partial(detect, coder=BoxCoder(ROI, UPPER), rule=rule))(
        logits,
        np.zeros((len(boxes), 3, 4), np.float32),
        boxes,
        valid=valid,
        image_size=np.array([100, 100]),
    )
    shared = functools.partial(detect_shared, rule=rule, candidates=1000)
    found, probs = compiled(shared)(logits, boxes, valid=valid)
    assert 5 < each.valid.sum() < 20
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, each)
    at = found.valid
    np.testing.assert_array_equal(probs[at, found.labels[at]], found.scores[at])
    assert not probs[~at].any()


def test_only_the_best_candidates_take_part():
    logits, boxes, valid = random_regions()
    rule = RULE._replace(size=4, iou_threshold=1.0)
    shared = functools.partial(detect_shared, rule=rule, candidates=4)
    found, _ = compiled(shared)(logits, boxes, valid=valid)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best = np.sort(scores[valid, :-1].ravel())[::-1][:4]
    np.testing.assert_allclose(found.scores, best, rtol=1e-5)


def test_a_shared_box_head_has_one_box():
    head = SharedBoxHead(num_classes=3, width=8)
    pooled = jax.ShapeDtypeStruct((2, 5, 7, 7, 4), jnp.float32)
    out, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), pooled)
    assert out.deltas.shape == (2, 5, 1, 4)
    assert variables["params"]["deltas"]["kernel"].shape == (8, 4)
