import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.association.track_decisions import (
    ACTIVE,
    FREE,
    INACTIVE,
    NEVER,
    allocate,
    decide,
    decide_by_scores,
    thresholds,
)


def _by_loop(status, matched, best, begins):
    """Slots one after the other, detections one after the other."""
    status, chosen, lost = list(status), list(best), 0
    for m, old in enumerate(status):
        if old != FREE:
            status[m] = ACTIVE if matched[m] else INACTIVE
    born = [False] * len(status)
    for n in np.flatnonzero(begins):
        free = [m for m, x in enumerate(status) if x == FREE]
        if not free:
            lost += 1
            continue
        status[free[0]], chosen[free[0]], born[free[0]] = ACTIVE, n, True
    return status, born, chosen, lost


@pytest.mark.parametrize("seed", range(30))
def test_slots_are_given_out_as_by_a_loop(seed):
    rng = np.random.default_rng(seed)
    status = rng.integers(0, 3, 5).astype(np.int32)
    matched, begins = rng.random(5) < 0.5, rng.random(7) < rng.random()
    best = rng.integers(0, 7, 5).astype(np.int32)
    found = compiled(allocate)(status, matched, best, begins)
    expected = _by_loop(status, matched, best, begins)
    np.testing.assert_array_equal(found.status, expected[0])
    np.testing.assert_array_equal(found.born, expected[1])
    shown = np.array(expected[0]) == ACTIVE
    np.testing.assert_array_equal(found.chosen[shown], np.array(expected[2])[shown])
    assert found.lost == expected[3]


def test_one_detection_goes_on_with_two_tracks_and_begins_a_third():
    match = np.float32([[3, -5], [2, -5], [NEVER, NEVER]])
    found = compiled(functools.partial(decide, thresholds=thresholds(0.5, 0.5)))(
        np.int32([ACTIVE, INACTIVE, FREE]),
        match,
        np.float32([1, -3]),
    )
    np.testing.assert_array_equal(found.status, [ACTIVE, ACTIVE, ACTIVE])
    np.testing.assert_array_equal(found.chosen, [0, 0, 0])
    np.testing.assert_array_equal(found.born, [False, False, True])


def test_scores_leave_a_detection_to_the_better_track_or_to_a_new_one():
    scores = np.float32([[-1, -4], [-2, -9], [NEVER, NEVER], [NEVER, NEVER]])
    found = compiled(decide_by_scores)(
        np.int32([ACTIVE, ACTIVE, FREE, FREE]), scores, np.float32([-3, -0.5])
    )
    np.testing.assert_array_equal(found.status, [ACTIVE, INACTIVE, ACTIVE, FREE])
    assert found.chosen[0] == 0
    assert found.chosen[2] == 1
