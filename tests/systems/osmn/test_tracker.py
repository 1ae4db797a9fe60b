import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.systems.osmn.coloured import (
    BLUE,
    GREEN,
    NETWORK,
    RED,
    clip_of,
    detections_of,
    one_by_one,
)
from vis_jax.systems.osmn import tracker as osmn

SIZE, SLOTS = 3, 3
# Two chunks for three slots: the second one moves back.
SETTINGS = osmn.Settings(chunk=2)


@functools.cache
def _tracker(**changes):
    tracker = osmn.build(replace(SETTINGS, **changes), SLOTS, NETWORK)
    return compiled(tracker.start), compiled(tracker.track)


def _run(shown, detected=None, *, frames=6, seed=None, **changes):
    """Identities [T, N], padded to one length so that there is one compilation."""
    padding = frames - len(shown)
    clip = clip_of(shown, padding)
    found = detections_of(detected or shown, SIZE, seed=seed, padding=padding)
    start, track = _tracker(**changes)
    state, tracked = track({}, start(clip, found), clip, found)
    assert not tracked.track_ids[len(shown) :].any()
    return tracked.track_ids[: len(shown)].tolist(), state, int(tracked.lost)


# Seven pixels in each frame, squares of six: the boxes of one never overlap.
FAST = [[(7 * t, 1, RED), (50 - 7 * t, 14, GREEN)] for t in range(6)]


@pytest.mark.parametrize(
    "changes", [{}, dict(overlap="mask", guide="best", losers="new", chunk=8)]
)
def test_objects_keep_their_identity_where_boxes_do_not_overlap(changes):
    ids, _, lost = _run(FAST, **changes)
    assert ids == [[1, 2, 0]] * 6
    assert lost == 0


def test_a_track_without_detections_moves_with_its_mask():
    detected = [frame if t in (0, 1, 5) else frame[1:] for t, frame in enumerate(FAST)]
    ids, state, _ = _run(FAST, detected)
    assert ids == [[1, 2, 0], [1, 2, 0], *[[2, 0, 0]] * 3, [1, 2, 0]]
    # Outputs for slots without a track are not kept.
    assert state.memory.places.sigma.any(axis=1).tolist() == [True, True, False]


def test_a_track_stays_while_its_object_is_out_of_sight():
    red, green = (10, 1, RED), (40, 14, GREEN)
    ids, _, _ = _run([[red, green], [green], [green], [(12, 2, RED), green]])
    assert ids == [[1, 2, 0], [2, 0, 0], [2, 0, 0], [1, 2, 0]]


def test_objects_that_no_mask_covers_begin_tracks_until_none_is_free():
    frames = [
        [(2, 1, RED)],
        [(2, 1, RED), (50, 1, RED)],  # the colour of a track, but too far from it
        [(50, 1, RED), (20, 1, GREEN), (30, 14, BLUE)],
        [(30, 14, BLUE), (20, 1, GREEN)],
    ]
    ids, _, lost = _run(frames)
    assert ids == [[1, 0, 0], [1, 2, 0], [2, 3, 0], [0, 3, 0]]
    assert lost == 2  # the blue one, each time


def test_a_detection_of_another_colour_is_no_continuation():
    ids, _, _ = _run([[(10, 1, RED)], [(10, 1, GREEN)]])
    assert ids == [[1, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize("guide", ["first", "best"])
def test_which_detection_shows_how_the_object_looks(guide):
    changes = {}
    if guide == "best":
        changes = dict(overlap="mask", guide="best", losers="new", chunk=8)
    paler, palest = (210, 50, 50), (220, 60, 60)
    frames = [[(10, 1, RED)], [(10, 1, paler)], [(10, 1, palest)]]
    clip, found = clip_of(frames, 3), detections_of(frames, SIZE, padding=3)
    scores = np.zeros((6, SIZE), np.float32)
    scores[:3, 0] = 0.5, 0.9, 0.7
    start, track = _tracker(**changes)
    found = found._replace(scores=scores)
    state, tracked = track({}, start(clip, found), clip, found)
    assert tracked.track_ids[:3, 0].tolist() == [1, 1, 1]
    colour = np.array(RED if guide == "first" else paler) / 255
    np.testing.assert_allclose(state.memory.gamma[0], colour, atol=1e-5)
    best = 0.5 if guide == "first" else 0.9
    np.testing.assert_allclose(state.memory.guide_scores[0], best)


def test_padding_changes_nothing():
    detected = [frame if t in (0, 1, 5) else frame[1:] for t, frame in enumerate(FAST)]
    ids, state, _ = _run(FAST, detected)
    others, other, _ = _run(FAST, detected, seed=1)
    assert ids == others
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_frame_by_frame_is_all_at_once():
    detected = [frame if t in (0, 1, 5) else frame[1:] for t, frame in enumerate(FAST)]
    clip, found = clip_of(FAST[:5], 1), detections_of(detected[:5], SIZE, padding=1)
    start, track = _tracker()
    state = start(clip, found)
    last, at_once = track({}, state, clip, found)
    end, rows = one_by_one(track, state, clip, found)
    np.testing.assert_array_equal([x.track_ids[0] for x in rows], at_once.track_ids)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), end, last)


def test_shows_the_very_arrays_of_the_detections():
    clip, found = clip_of(FAST), detections_of(FAST, SIZE)
    tracker = osmn.build(SETTINGS, SLOTS, NETWORK)

    def track(found):
        _, tracked = tracker.track({}, tracker.start(clip, found), clip, found)
        assert tracked.shown is None
        return tracked.lost

    jax.eval_shape(track, found)
