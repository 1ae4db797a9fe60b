import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import load
from vis_jax.ops.nms import nms_by_label, nms_each_label

CASE = load("ops")
BOXES, SCORES = (CASE.arrays[f"nms/{x}"] for x in ("boxes", "scores"))
LABELS = CASE.arrays["nms/labels"].astype(np.int32)
ALL = np.ones(len(BOXES), bool)
by_label = compiled(
    nms_by_label, static_argnames=("iou_threshold", "size")
)  # one compilation for each threshold


def nms(boxes, scores, valid, **settings):
    """All boxes have the same label."""
    labels = jnp.zeros(len(boxes), jnp.int32)
    return nms_by_label(boxes, scores, labels, valid=valid, **settings)


cut = compiled(nms, static_argnames=("iou_threshold", "size"))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_keeps_what_torchvision_keeps(threshold):
    """Many scores are equal: the order among them counts, too."""
    for name, labels in (("nms", np.zeros_like(LABELS)), ("batched_nms", LABELS)):
        stored = CASE.arrays[f"{name}/keep_{threshold}"]
        kept = by_label(
            BOXES, SCORES, labels, valid=ALL, iou_threshold=threshold, size=46
        )
        assert int(kept.valid.sum()) == len(stored)
        np.testing.assert_array_equal(kept.chosen[: len(stored)], stored)
        assert not kept.valid[len(stored) :].any()


def test_a_chain_is_cut_greedily():
    # Each box overlaps its neighbours: the first suppresses the second, which
    # therefore does not suppress the third.
    left = np.arange(4.0)
    boxes = np.stack([left, left * 0, left + 2, left * 0 + 1], axis=1)
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    valid = np.ones(4, bool)
    kept = cut(boxes, scores, valid, iou_threshold=0.3, size=3)
    np.testing.assert_array_equal(kept.chosen[kept.valid], [0, 2])
    # Without the first, the second and the fourth remain.
    others = valid & (np.arange(4) > 0)
    kept = cut(boxes, scores, others, iou_threshold=0.3, size=3)
    np.testing.assert_array_equal(kept.chosen[kept.valid], [1, 3])


def test_boxes_of_each_label_are_as_suppressed_one_by_one():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 6, (3, 20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 6, (3, 20, 2))], axis=-1)
    boxes = boxes.astype(np.float32)
    scores = rng.random((3, 20)).round(1).astype(np.float32)
    valid = rng.random((3, 20)) < 0.8
    labels = np.repeat(np.arange(3), 20)
    expected = by_label(
        boxes.reshape(60, 4),
        scores.ravel(),
        labels,
        valid=valid.ravel(),
        iou_threshold=0.4,
        size=25,
    )
    each = functools.partial(nms_each_label, iou_threshold=0.4, size=25)
    ours = compiled(each)(boxes, scores, valid)
    np.testing.assert_array_equal(ours.valid, expected.valid)
    np.testing.assert_array_equal(
        ours.chosen[ours.valid], expected.chosen[expected.valid]
    )


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, 2), (0.49, 1)])
def test_an_overlap_of_just_the_threshold_suppresses_nothing(threshold, kept):
    boxes = jnp.array([[0.0, 0, 2, 1], [0, 0, 1, 1]])  # IoU 1 / 2
    inputs = (boxes, jnp.array([0.9, 0.8]), jnp.ones(2, bool))
    settings = dict(iou_threshold=threshold, size=2)
    each = jax.jit(functools.partial(nms_each_label, **settings))
    assert each(*(x[None] for x in inputs)).valid.sum() == kept
    assert jax.jit(functools.partial(nms, **settings))(*inputs).valid.sum() == kept


def test_runs_on_a_batch():
    one = functools.partial(nms, iou_threshold=0.5, size=10)
    batch = compiled(jax.vmap(one))(
        *(np.stack([x, x[::-1]]) for x in (BOXES, SCORES, ALL))
    )
    for row in batch.chosen:
        assert len(set(row.tolist())) == 10
    alone = CASE.arrays["nms/keep_0.5"][:10]
    np.testing.assert_array_equal(batch.chosen[0], alone)


@pytest.mark.parametrize("size", [0, 47])
def test_more_than_there_are_is_an_error(size):
    with pytest.raises(ValueError, match=f"expected 1 .. 46 boxes, got {size}"):
        cut(BOXES, SCORES, ALL, iou_threshold=0.5, size=size)
