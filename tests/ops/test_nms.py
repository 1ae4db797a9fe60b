import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import FOLDER, load
from vis_jax.ops.nms import fast_nms, fast_nms_each_label, nms_by_label, nms_each_label

CASE = load("ops")
BOXES, SCORES = (CASE.arrays[f"nms/{x}"] for x in ("boxes", "scores"))
LABELS = CASE.arrays["nms/labels"].astype(np.int32)
ALL = np.ones(len(BOXES), bool)
# One compilation for each threshold.
by_label = compiled(nms_by_label, static_argnames=("iou_threshold", "size"))


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
    valid = inputs[2]
    quick = functools.partial(fast_nms, valid=valid, candidates=2, **settings)
    assert jax.jit(quick)(*inputs[:2]).valid.sum() == kept
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


def fast(boxes, scores, valid, *, each=False, **settings):
    function = fast_nms_each_label if each else fast_nms
    run = functools.partial(function, iou_threshold=0.3, **settings)
    kept = compiled(lambda *x: run(x[0], x[1], valid=x[2]))(boxes, scores, valid)
    return kept.chosen[kept.valid].tolist()


def fast_one_by_one(boxes, scores, valid, candidates):
    """The definition, box by box, in the order of the scores."""
    order = [i for i in np.argsort(-scores, kind="stable") if valid[i]][:candidates]
    corners = boxes.astype(np.float64)
    kept = []
    for place, i in enumerate(order):
        for j in order[:place]:
            low = np.maximum(corners[i, :2], corners[j, :2])
            high = np.minimum(corners[i, 2:], corners[j, 2:])
            both = np.prod(np.maximum(high - low, 0))
            areas = [np.prod(corners[k, 2:] - corners[k, :2]) for k in (i, j)]
            if both / (sum(areas) - both) > 0.3:
                break
        else:
            kept.append(int(i))
    return kept


def random_boxes(count, rng):
    corners = rng.uniform(0, 6, (count, 2))
    sides = rng.uniform(1, 6, (count, 2))
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def test_a_suppressed_box_still_suppresses_in_the_fast_form():
    left = np.arange(4.0, dtype=np.float32)
    boxes = np.stack([left, left * 0, left + 2, left * 0 + 1], axis=1)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    valid = np.ones(4, bool)
    # The third goes for the second, which goes for the first.
    assert fast(boxes, scores, valid, candidates=4, size=4) == [0]
    # An invalid box does not suppress, nor does one that is no candidate.
    assert fast(boxes, scores, valid & (left != 1), candidates=4, size=4) == [0, 2]
    assert fast(boxes, scores, valid, candidates=1, size=1) == [0]


@pytest.mark.parametrize("candidates", [5, 30])
def test_the_fast_form_is_the_definition(candidates):
    rng = np.random.default_rng(2)
    boxes, scores = random_boxes(30, rng), rng.random(30).round(1).astype(np.float32)
    valid = rng.random(30) < 0.8
    expected = fast_one_by_one(boxes, scores, valid, candidates)
    found = fast(boxes, scores, valid, candidates=candidates, size=5)
    assert found == expected[:5]


def test_the_fast_form_for_each_label():
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(20, rng), rng.random((3, 20)).astype(np.float32)
    valid = rng.random(20) < 0.8
    expected = [
        20 * k + i
        for k in range(3)
        for i in fast_one_by_one(boxes, scores[k], valid, 10)
    ]
    expected.sort(key=lambda i: -scores.ravel()[i])
    found = fast(boxes, scores, valid, each=True, candidates=10, size=12)
    assert found == expected[:12] and len(expected) > 4
    assert fast(boxes, scores, valid & False, each=True, candidates=10, size=12) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(candidates=47, size=5), "candidates: expected 1 .. 46 boxes, got 47"),
        (dict(candidates=5, size=6), "size: expected 1 .. 5 boxes, got 6"),
        (dict(candidates=5, size=0), "size: expected 1 .. 5 boxes, got 0"),
    ],
)
def test_sizes_of_the_fast_form(settings, message):
    with pytest.raises(ValueError, match=message):
        fast(BOXES, SCORES, ALL, **settings)


def test_what_yolact_kept_stays():
    """100 detections of the official code: none is beaten by a better one."""
    with np.load(FOLDER / "shared_ops.npz") as stored:
        boxes, classes, scores = (
            stored[f"yolact_r50/detections/0/{x}"] for x in ("box", "class", "score")
        )
    for label in np.unique(classes):
        valid = classes == label
        kept = compiled(
            functools.partial(fast_nms, iou_threshold=0.5, candidates=100, size=100)
        )(boxes, scores, valid=valid)
        assert set(kept.chosen[kept.valid]) == set(np.flatnonzero(valid))
