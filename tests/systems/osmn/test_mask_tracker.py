import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.systems.osmn.coloured import (
    BLUE,
    GREEN,
    HEIGHT,
    NETWORK,
    RED,
    SIDE,
    WIDTH,
    clip_of,
    detections_of,
    one_by_one,
)
from vis_jax.systems.osmn import mask_tracker as osmn_masks

SIZE, SLOTS = 2, 3
SETTINGS = osmn_masks.Settings(mask_stride=1, chunk=2)
FAST = [[(7 * t, 1, RED), (50 - 7 * t, 14, GREEN)] for t in range(6)]


@functools.cache
def _tracker(**changes):
    tracker = osmn_masks.build(replace(SETTINGS, **changes), SLOTS, NETWORK)
    return compiled(tracker.start), compiled(tracker.track)


def _run(shown, detected=None, *, frames=6, seed=None):
    padding = frames - len(shown)
    clip = clip_of(shown, padding)
    found = detections_of(detected or shown, SIZE, seed=seed, padding=padding)
    start, track = _tracker()
    _, tracked = track({}, start(clip, found), clip, found)
    assert not tracked.track_ids[len(shown) :].any()
    assert not tracked.shown.valid[len(shown) :].any()
    return jax.tree.map(lambda x: x if x.ndim == 0 else x[: len(shown)], tracked)


def _square(x, y, _):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + SIDE, x : x + SIDE] = True
    return mask


def test_shows_the_masks_of_the_network_with_what_detections_say():
    detected = [frame if t in (0, 3) else frame[1:] for t, frame in enumerate(FAST)]
    tracked = _run(FAST, detected)
    assert tracked.track_ids.tolist() == [[1, 2, 0]] * 6
    masks = tracked.shown.mask_logits > 0
    for t, frame in enumerate(FAST):
        for slot in (0, 1):
            np.testing.assert_array_equal(masks[t, slot], _square(*frame[slot]))
    np.testing.assert_array_equal(tracked.shown.boxes[2, 0], [0, 0, WIDTH, HEIGHT])
    assert not tracked.shown.boxes[:, 2].any()
    # Without a detection the red one has no score, but its label and its mask.
    scores = np.array(tracked.shown.scores)
    np.testing.assert_allclose(scores[:, 0], [0.9, 0, 0, 0.9, 0, 0])
    np.testing.assert_allclose(scores[:, 1], 0.9)
    assert tracked.shown.labels[:, :2].tolist() == [[0, 1]] * 6


def test_a_detection_that_no_mask_covers_begins_a_track():
    tracked = _run(
        [
            [(2, 1, RED)],
            [(2, 1, RED), (40, 1, BLUE)],
            [(40, 1, BLUE)],  # the red one is out of sight ..
            [(3, 1, RED), (40, 1, BLUE)],  # .. and comes back
        ]
    )
    assert tracked.track_ids.tolist() == [[1, 0, 0], [1, 2, 0], [0, 2, 0], [1, 2, 0]]
    assert not (tracked.shown.mask_logits[2, 0] > 0).any()


def test_objects_without_a_free_slot_are_counted():
    frames = [[(2, 1, RED), (20, 1, GREEN)], [(40, 1, BLUE), (50, 14, (200, 200, 9))]]
    tracked = _run(frames)
    assert tracked.track_ids.tolist() == [[1, 2, 0], [0, 0, 3]]
    assert int(tracked.lost) == 1


def test_each_pixel_goes_to_the_track_of_the_largest_logit():
    # Two tracks of nearly one colour: each square is closer to its own.
    close = (190, 50, 50)
    frames = [[(20, 1, RED), (27, 1, close)], [(20, 1, RED), (27, 1, close)]]
    masks = _run(frames).shown.mask_logits[1] > 0
    for slot in (0, 1):
        np.testing.assert_array_equal(masks[slot], _square(*frames[1][slot]))


def test_padding_changes_nothing():
    detected = [frame if t in (0, 3) else frame[1:] for t, frame in enumerate(FAST)]
    ours, theirs = _run(FAST, detected), _run(FAST, detected, seed=1)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_frame_by_frame_is_all_at_once_and_masks_may_be_coarser():
    clip, found = clip_of(FAST[:5], 1), detections_of(FAST[:5], SIZE, padding=1)
    start, track = _tracker(mask_stride=4)
    state = start(clip, found)
    end, rows = one_by_one(track, state, clip, found)
    start, track = _tracker()
    last, at_once = track({}, state, clip, found)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), end, last)
    for t, row in enumerate(rows):
        np.testing.assert_array_equal(row.track_ids[0], at_once.track_ids[t])
        whole = np.array(at_once.shown.mask_logits[t] > 0)
        share = whole.reshape(SLOTS, HEIGHT // 4, 4, WIDTH // 4, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(row.shown.mask_logits[0] + 0.5, share, atol=1e-6)


def test_cells_have_to_divide_the_canvas():
    tracker = osmn_masks.build(replace(SETTINGS, mask_stride=5), SLOTS, NETWORK)
    with pytest.raises(ValueError, match="mask_stride: expected .* 24 x 64 .* got 5"):
        tracker.start(clip_of(FAST), detections_of(FAST, SIZE))
