"""Losses of RGNNVIS against loops in float64 and numbers worked out by hand."""

import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.losses.track_graph import (
    MaskTruth,
    frame_weights,
    mask_truth,
    match_loss,
    score_loss,
    segmentation_loss,
    start_loss,
)

LENGTH, SLOTS, DETECTIONS, CLASSES, OBJECTS = 3, 4, 5, 6, 3
CELLS, CANVAS = (4, 6), (8, 12)

match, start, score = map(compiled, (match_loss, start_loss, score_loss))
match_slope, score_slope = (
    compiled(jax.value_and_grad(loss)) for loss in (match_loss, score_loss)
)
weigh = compiled(frame_weights, static_argnames="normalised")
truth_of = compiled(mask_truth, static_argnames="stride")
_STATIC = ("canvas", "stride", "background")
segment = compiled(segmentation_loss, static_argnames=_STATIC)


@functools.partial(compiled, static_argnames=_STATIC)
def segment_slope(mask_logits, truth, slots, **settings):
    def total(mask_logits):
        return segmentation_loss(mask_logits, truth, slots, **settings).sum()

    return jax.grad(total)(mask_logits)


def slope_of(function, at, step=1e-6):
    """Central differences in every entry, in float64."""
    slope = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        moved = [at.astype(np.float64) for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        slope[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return slope


def pair_case(seed=0):
    """Logits, targets, pairs that count, valid frames; low logits where none counts."""
    rng = np.random.default_rng(seed)
    shape = (LENGTH, SLOTS, DETECTIONS)
    pairs = rng.random(shape) < 0.6
    logits = np.where(pairs, rng.normal(0, 3, shape), -1e5).astype(np.float32)
    return logits, rng.random(shape) < 0.3, pairs, np.array([True, False, True])


def literal_pairs(logits, targets, pairs, frame_valid):
    total = 0.0
    for place in np.ndindex(pairs.shape):
        if pairs[place] and frame_valid[place[0]]:
            prob = 1 / (1 + np.exp(-np.float64(logits[place])))
            total -= np.log(prob if targets[place] else 1 - prob)
    return total


def test_pairs_cost_their_logistic_loss():
    logits, targets, pairs, frame_valid = pair_case()
    value, slope = match_slope(logits, targets, pairs=pairs, frame_valid=frame_valid)
    expected = literal_pairs(logits, targets, pairs, frame_valid)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    expected = slope_of(lambda x: literal_pairs(x, targets, pairs, frame_valid), logits)
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    of_starts = start(
        logits[:, 0], targets[:, 0], valid=pairs[:, 0], frame_valid=frame_valid
    )
    expected = literal_pairs(logits[:, 0], targets[:, 0], pairs[:, 0], frame_valid)
    np.testing.assert_allclose(of_starts, expected, rtol=1e-5)


def test_padding_changes_no_logistic_loss_and_has_no_gradient():
    logits, targets, pairs, frame_valid = pair_case()
    ours = match_slope(logits, targets, pairs=pairs, frame_valid=frame_valid)
    counts = pairs & frame_valid[:, None, None]
    for junk in (1e3, -1e5, np.inf, np.nan):
        changed = np.where(counts, logits, junk).astype(np.float32)
        value, slope = match_slope(
            changed, targets ^ ~counts, pairs=pairs, frame_valid=frame_valid
        )
        np.testing.assert_array_equal(value, ours[0])
        np.testing.assert_array_equal(slope, ours[1])
    assert not slope[~counts].any()
    # Nothing to learn from: no track, no detection.
    none = np.zeros_like(pairs)
    value, slope = match_slope(logits, none, pairs=none, frame_valid=frame_valid)
    assert value == 0
    assert not slope.any()


def test_false_tracks_leave_the_gradient_of_the_others_as_it_is():
    logits, targets, pairs, frame_valid = pair_case()
    fewer = pairs & (np.arange(SLOTS) < 2)[:, None]
    targets = targets & fewer
    _, few = match_slope(logits, targets, pairs=fewer, frame_valid=frame_valid)
    _, many = match_slope(logits, targets, pairs=pairs, frame_valid=frame_valid)
    np.testing.assert_array_equal(few[:, :2], many[:, :2])
    assert many[:, 2:].any()


def test_late_frames_weigh_most():
    ten = [0.0301, 0.0376, 0.047, 0.0587, 0.0734, 0.0918, 0.1147, 0.1434, 0.1792]
    every = np.ones(10, bool)
    paper = weigh(every, normalised=True)
    np.testing.assert_allclose(paper, [*ten, 0.2241], atol=5e-5)
    np.testing.assert_allclose(paper.sum(), 1, rtol=1e-6)
    released = weigh(every, normalised=False)
    np.testing.assert_allclose(released[-2:], [0.285 * 0.64, 0.285 * 0.8], rtol=1e-6)
    np.testing.assert_allclose(released.sum(), 1.0176, atol=5e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_padded_frames_weigh_nothing(normalised):
    valid = np.array([True, True, False, True, False])
    ours = weigh(valid, normalised=normalised)
    alone = weigh(np.ones(3, bool), normalised=normalised)
    np.testing.assert_allclose(ours[valid], alone, rtol=1e-6)
    assert not ours[~valid].any()
    assert not weigh(np.zeros(5, bool), normalised=normalised).any()


def literal_scores(logits, classes, scored, weights):
    total = 0.0
    for frame, slot in zip(*np.nonzero(scored), strict=True):
        of_track = logits[frame, slot].astype(np.float64)
        log_prob = of_track[classes[slot]] - np.log(np.exp(of_track).sum())
        total -= weights[frame] * log_prob
    return total


def test_classes_cost_their_weighted_cross_entropy():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (LENGTH, SLOTS, CLASSES)).astype(np.float32)
    classes = np.array([0, 3, 5, 0], np.int32)
    scored = np.arange(SLOTS) <= np.arange(LENGTH)[:, None]  # the last slot is free
    weights = weigh(np.array([True, True, False]), normalised=True)
    value, slope = score_slope(logits, classes, scored=scored, weights=weights)
    expected = literal_scores(logits, classes, scored, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    expected = slope_of(lambda x: literal_scores(x, classes, scored, weights), logits)
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    counts = scored & (weights > 0)[:, None]
    junk = np.where(counts[..., None], logits, np.inf).astype(np.float32)
    again = score_slope(junk, classes, scored=scored, weights=weights)
    np.testing.assert_array_equal(again[0], value)
    np.testing.assert_array_equal(again[1], slope)
    assert score(logits, classes, scored=counts & False, weights=weights) == 0


def weights_of(cells, pixels):
    """Returns the bilinear weight of each cell of an axis at each pixel's centre."""
    at = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0)


def literal_lovasz(probs, targets):
    """Errors from the worst on, each times the growth of the Jaccard loss."""
    errors = np.abs(targets - probs)
    loss, before, missed, extra = 0.0, 0.0, 0, 0
    for pixel in sorted(range(len(errors)), key=lambda p: -errors[p]):
        missed += bool(targets[pixel])
        extra += not targets[pixel]
        jaccard = 1 - (targets.sum() - missed) / (targets.sum() + extra)
        loss += errors[pixel] * (jaccard - before)
        before = jaccard
    return loss


def literal_segments(mask_logits, masks, slots, frame_valid, size, stride, background):
    """Losses of all frames; masks [G L H W]."""
    rows, columns = map(weights_of, CELLS, CANVAS)
    offset, losses = stride // 2, []
    for frame in range(len(mask_logits)):
        up = rows @ mask_logits[frame].astype(np.float64) @ columns.T
        pixels = [
            (y, x)
            for y in range(offset, CANVAS[0], stride)
            for x in range(offset, CANVAS[1], stride)
            if frame_valid[frame] and y < size[0] and x < size[1]
        ]
        labels, probs = [], []
        for y, x in pixels:
            seen = np.flatnonzero(masks[:, frame, y, x])
            slot = slots[frame, seen[0]] if len(seen) else -1
            labels.append(slot + 1)
            weights = np.exp([background, *up[:, y, x]])
            probs.append(weights / weights.sum())
        labels, probs = np.array(labels), np.array(probs)
        values = [literal_lovasz(probs[:, c], labels == c) for c in np.unique(labels)]
        losses.append(np.mean(values) if values else 0.0)
    return np.array(losses)


def mask_case(seed=0):
    """Mask logits, masks that overlap, slots, valid frames and the content."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (LENGTH, SLOTS, *CELLS)).astype(np.float32)
    logits[0, 2] = -20  # not active
    masks = rng.random((OBJECTS, LENGTH, *CANVAS)) < 0.4
    slots = np.array([[2, -1, 0], [1, 3, -1], [0, 1, 2]], np.int32)
    frame_valid = np.array([True, True, False])
    return logits, masks, slots, frame_valid, np.array([7, 10], np.int32)


@pytest.mark.parametrize(("stride", "background"), [(1, 0.0), (2, 10.0), (3, 0.0)])
def test_masks_cost_their_lovasz_softmax(stride, background):
    logits, masks, slots, frame_valid, size = mask_case()
    settings = dict(canvas=CANVAS, stride=stride, background=background)
    truth = truth_of(masks, frame_valid, size, stride=stride)
    ours = segment(logits, truth, slots, **settings)

    def expected(logits):
        return literal_segments(
            logits, masks, slots, frame_valid, size, stride, background
        )

    np.testing.assert_allclose(ours, expected(logits), rtol=1e-5)
    assert (ours > 0.1)[:2].all()
    assert ours[2] == 0
    slope = segment_slope(logits, truth, slots, **settings)
    differences = slope_of(lambda x: expected(x).sum(), logits)
    np.testing.assert_allclose(slope, differences, atol=2e-6)
    assert np.abs(slope).max() > 1e-6


def toy(probs, objects):
    """One row of pixels, one track: its probabilities and where its object is."""
    probs = np.clip(np.array(probs, np.float64), 1e-30, 1 - 1e-12)
    logits = np.log(probs / (1 - probs)).astype(np.float32).reshape(1, 1, 1, -1)
    objects = np.array(objects, np.int32).reshape(1, 1, -1)
    truth = MaskTruth(objects, np.ones(objects.shape, bool))
    slots = np.zeros((1, 1), np.int32)
    settings = dict(canvas=objects.shape[1:], stride=1, background=0.0)
    return segment(logits, truth, slots, **settings)


def test_the_worked_example_and_perfect_masks():
    # Background 0.491667, object 0.5.
    np.testing.assert_allclose(
        toy([0.1, 0.8, 0.4, 0.7], [0, 1, 1, 0]), [0.495833], atol=1e-6
    )
    np.testing.assert_allclose(toy([0, 1, 1, 0], [0, 1, 1, 0]), [0], atol=1e-6)
    np.testing.assert_allclose(toy([1, 0, 0, 1], [0, 1, 1, 0]), [1], atol=1e-6)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_stride_takes_some_of_the_pixels_of_the_canvas(stride):
    logits, masks, slots, frame_valid, size = mask_case(1)
    settings = dict(canvas=CANVAS, background=0.0)
    few = truth_of(masks, frame_valid, size, stride=stride)
    every = truth_of(masks, frame_valid, size, stride=1)
    chosen = np.zeros(CANVAS, bool)
    chosen[stride // 2 :: stride, stride // 2 :: stride] = True
    every = every._replace(counts=every.counts & chosen)
    np.testing.assert_array_equal(few.objects[0].ravel(), every.objects[0][chosen])
    np.testing.assert_allclose(
        segment(logits, few, slots, stride=stride, **settings),
        segment(logits, every, slots, stride=1, **settings),
        rtol=1e-5,
    )


def test_the_first_of_overlapping_objects_is_seen_within_the_content():
    masks = np.zeros((3, 2, 2, 4), bool)
    masks[1, 0, :, :3], masks[2, 0, :, 1:], masks[0, 1] = True, True, True
    truth = truth_of(
        masks, np.array([True, False]), np.array([2, 3], np.int32), stride=1
    )
    np.testing.assert_array_equal(truth.objects[0], [[2, 2, 2, 3]] * 2)
    np.testing.assert_array_equal(truth.objects[1], np.ones((2, 4)))
    np.testing.assert_array_equal(truth.counts[0], [[True, True, True, False]] * 2)
    assert not truth.counts[1].any()


def test_padded_slots_objects_and_frames_change_no_mask():
    logits, masks, slots, frame_valid, size = mask_case()
    settings = dict(canvas=CANVAS, stride=1, background=0.0)
    truth = truth_of(masks, frame_valid, size, stride=1)
    ours = segment(logits, truth, slots, **settings)
    slope = segment_slope(logits, truth, slots, **settings)
    wide = np.pad(logits, ((0, 0), (0, 2), (0, 0), (0, 0)), constant_values=-20)
    wide[2] = 1e3  # a frame that does not count
    more = np.pad(slots, ((0, 0), (0, 2)), constant_values=-1)
    masks = np.pad(masks, ((0, 2), (0, 0), (0, 0), (0, 0)))
    truth = truth_of(masks, frame_valid, size, stride=1)
    np.testing.assert_allclose(segment(wide, truth, more, **settings), ours, atol=1e-6)
    padded = segment_slope(wide, truth, more, **settings)
    np.testing.assert_allclose(padded[:, :SLOTS], slope, atol=1e-6)
    assert not padded[2].any()
    np.testing.assert_allclose(padded[:, SLOTS:], 0, atol=1e-6)


def test_frames_of_several_clips_are_handled_at_once_or_clip_by_clip():
    logits, masks, slots, frame_valid, size = mask_case()
    truth = truth_of(masks, frame_valid, size, stride=1)
    settings = dict(canvas=CANVAS, stride=1, background=0.0)

    @compiled
    def by_clip(*args):
        return jax.vmap(functools.partial(segmentation_loss, **settings))(*args)

    one = (logits, truth, slots)
    two = jax.tree.map(lambda x: np.stack([x, x[::-1]]), one)
    flat = jax.tree.map(lambda x: np.concatenate([x, x[::-1]]), one)
    ours = segment(*flat, **settings)
    np.testing.assert_allclose(ours.reshape(2, LENGTH), by_clip(*two), rtol=1e-6)


def test_nothing_to_see_has_a_finite_gradient():
    logits = np.full((LENGTH, SLOTS, *CELLS), -20, np.float32)
    none = np.full((LENGTH, OBJECTS), -1, np.int32)
    masks = np.zeros((OBJECTS, LENGTH, *CANVAS), bool)
    size, settings = np.array(CANVAS, np.int32), dict(canvas=CANVAS, stride=1)
    for masks_of, frames in ((masks, True), (~masks, True), (masks, False)):
        frame_valid = np.full(LENGTH, frames)
        truth = truth_of(masks_of, frame_valid, size, stride=1)
        loss = segment(logits, truth, none, background=0.0, **settings)
        np.testing.assert_allclose(loss, 0, atol=1e-6)
        slope = segment_slope(logits, truth, none, background=0.0, **settings)
        assert np.isfinite(slope).all()
    # An object whose track is not active counts as missed.
    truth = truth_of(~masks, np.ones(LENGTH, bool), size, stride=1)
    slots = np.zeros((LENGTH, OBJECTS), np.int32)
    loss = segment(logits, truth, slots, background=0.0, **settings)
    np.testing.assert_allclose(loss, 1, rtol=1e-6)
