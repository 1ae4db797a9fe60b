import functools
import itertools
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.compiled import compiled
from tests.trackers.contract import (
    SLOTS,
    check_frame_by_frame,
    check_order,
    check_padding,
    check_separated_objects,
    runner,
)
from tests.trackers.frames import Seen, square
from vis_jax.trackers.deep_sort import PUBLISHED, Settings, build
from vis_jax.trackers.deep_sort_matching import (
    Limits,
    Pairs,
    Weights,
    match_by_cascade,
    match_by_score,
)
from vis_jax.trackers.kalman import GATE
from vis_jax.trackers.tracker import Tracker

DEFAULT = Settings()
STRICT = replace(PUBLISHED, n_init=2, max_age=3)  # as published, for fewer frames
LIMITS = Limits(look_distance=0.2, iou_distance=0.7)
WEIGHTS = Weights(1.0, 2.0, 10.0, 2.0)


def tracker_of(settings) -> Tracker:
    """With unit-length embeddings of the tests as descriptors."""
    tracker = build(settings, SLOTS)

    def described(found):
        length = jnp.linalg.norm(found.embeds, axis=-1, keepdims=True)
        return found._replace(descriptors=found.embeds / jnp.maximum(length, 1e-6))

    def track(variables, state, clip, found):
        return tracker.track(variables, state, clip, described(found))

    return Tracker(
        lambda clip, found: tracker.start(clip, described(found)), track, False
    )


@functools.cache
def run_of(settings):
    return runner(tracker_of(settings))


@compiled
def cascade(pairs, detected, confirmed, tentative, unseen):
    return match_by_cascade(
        pairs,
        detected,
        confirmed=confirmed,
        tentative=tentative,
        unseen=unseen,
        limits=LIMITS,
        max_age=4,
    )


@compiled
def by_score(pairs, detected, scores, live):
    return match_by_score(
        pairs, detected, scores, live=live, limits=LIMITS, weights=WEIGHTS
    )


def random_pairs(rng, tracks: int, detections: int) -> Pairs:
    """Distances of which about half are below their limits."""
    shape = (tracks, detections)
    return Pairs(
        descriptor_distances=rng.uniform(0, 0.4, shape).astype(np.float32),
        gate_distances=rng.uniform(0, 15, shape).astype(np.float32),
        iou_distances=rng.uniform(0.4, 1, shape).astype(np.float32),
        same_label=rng.random(shape) < 0.5,
    )


def literal_cascade(pairs, confirmed, tentative, unseen, detections):
    """The authors' loop, on lists: pairs of track and detection."""
    descriptors, gates, overlaps = (np.asarray(x, np.float64) for x in pairs[:3])
    descriptors = np.where(gates > GATE, 1e5, descriptors)

    def assign(costs, tracks, detections, limit):
        costs = costs[np.ix_(tracks, detections)]
        costs = np.where(costs > limit, limit + 1e-5, costs)
        rows, columns = linear_sum_assignment(costs)
        return {
            (tracks[i], detections[j])
            for i, j in zip(rows, columns, strict=True)
            if costs[i, j] <= limit
        }

    matches = set()
    for age in range(1, 5):
        tracks = [k for k in confirmed if unseen[k] == age]
        left = [d for d in detections if d not in {j for _, j in matches}]
        matches |= assign(descriptors, tracks, left, LIMITS.look_distance)
    done = {i for i, _ in matches}
    tracks = tentative + [k for k in confirmed if unseen[k] == 1 and k not in done]
    left = [d for d in detections if d not in {j for _, j in matches}]
    return matches | assign(overlaps, tracks, left, LIMITS.iou_distance)


def pairs_of(slots, tracks: int) -> set:
    return {(int(s), d) for d, s in enumerate(slots) if s < tracks}


def test_the_cascade_takes_whom_it_saw_last():
    """Both tracks look alike, the one not seen for long even more so."""
    pairs = random_pairs(np.random.default_rng(0), 5, 4)
    descriptors, ones = np.ones((2, 5, 4), np.float32)
    descriptors[:2, 0] = 0.05, 0.1
    pairs = pairs._replace(
        descriptor_distances=descriptors, gate_distances=0 * ones, iou_distances=ones
    )
    nobody = np.zeros(5, bool)
    confirmed = np.arange(5) < 2
    only = np.arange(4) == 0
    unseen = np.array([4, 2, 0, 0, 0])
    assert cascade(pairs, only, confirmed, nobody, unseen).tolist() == [1, 5, 5, 5]
    # Seen at the same time, the more alike wins; beyond max_age nobody does.
    same = np.array([2, 2, 0, 0, 0])
    assert cascade(pairs, only, confirmed, nobody, same)[0] == 0
    late = np.array([5, 5, 0, 0, 0])
    assert cascade(pairs, only, confirmed, nobody, late)[0] == 5


@pytest.mark.parametrize("seed", range(30))
def test_the_cascade_is_that_of_the_authors(seed):
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 5, 4)
    status, unseen = rng.integers(0, 4, 5), rng.integers(1, 6, 5)
    unseen = np.where(status == 1, 1, unseen)  # tentative tracks do not wait
    detected = rng.random(4) < 0.8
    confirmed, tentative = np.flatnonzero(status > 1), np.flatnonzero(status == 1)
    expected = literal_cascade(
        pairs, confirmed.tolist(), tentative.tolist(), unseen, np.flatnonzero(detected)
    )
    slots = cascade(
        pairs,
        detected,
        status > 1,
        status == 1,
        unseen,
    )
    assert pairs_of(slots, 5) == expected


@pytest.mark.parametrize("tracks", [2, 4])
def test_the_score_is_the_largest_of_all_assignments(tracks):
    """Among those of the most pairs; also with fewer tracks than detections."""
    sizes = set()
    for seed in range(15):
        rng = np.random.default_rng(seed)
        pairs = random_pairs(rng, tracks, 3)
        scores = rng.uniform(0.05, 1, 3).astype(np.float32)
        detected, live = rng.random(3) < 0.8, rng.random(tracks) < 0.8
        descriptors, gates, overlaps = (np.asarray(x) for x in pairs[:3])
        allowed = (overlaps <= 0.7) | ((descriptors <= 0.2) & (gates <= GATE))
        allowed &= live[:, None] & detected
        values = np.log(scores) + 2 * (1 - overlaps) + 2 * (1 - descriptors)
        values += 10 * np.asarray(pairs.same_label)
        best = max(
            (
                {(i, d) for i, d in zip(order, range(3), strict=True) if i < tracks}
                for order in itertools.permutations(range(tracks + 3), 3)
                if all(i >= tracks or allowed[i, d] for d, i in enumerate(order))
            ),
            key=lambda chosen: (len(chosen), sum(values[i, d] for i, d in chosen)),
        )
        slots = by_score(pairs, detected, scores, live)
        assert pairs_of(slots, tracks) == best, seed
        sizes.add(len(best))
    assert len(sizes) > 1


def test_looks_bridge_a_jump_that_the_filter_expects():
    """IoU 1/9, at 0.4 heights; a box twice as far is outside the gate."""
    red, blue = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)

    def second(shift, look):
        box, moved = (0, 0, 10, 20), (shift, 0, 10 + shift, 20)
        frames = [[Seen(box, embed=red)], [Seen(moved, embed=look)]]
        return run_of(DEFAULT)(frames)[0][1]

    assert second(8, red) == [1]
    assert second(8, blue) == [2]
    assert second(16, red) == [2]
    assert second(4, blue) == [1]  # IoU 3/7


def test_a_track_is_confirmed_and_expires():
    run, nothing = run_of(STRICT), []
    here = [Seen(square(0), embed=(1.0, 0.0, 0.0))]
    # A track seen once is deleted by a miss; seen twice in a row, it stays.
    assert run([here, nothing, here]) == ([[1], [], [2]], 0)
    assert run([here, here, nothing, nothing, here])[0][-1] == [1]
    assert run([here, here, nothing, nothing, nothing, here])[0][-1] == [2]
    # After more than one frame the box alone does not do.
    blank = [Seen(square(0))]
    assert run([blank, blank, nothing, blank])[0][-1] == [2]


def test_tracks_not_yet_confirmed_can_be_hidden():
    run, here = run_of(replace(STRICT, show_tentative=False)), [Seen(square(0))]
    assert run([here, here, here, [], [], here]) == ([[0], [1], [1], [], [], [0]], 0)


def test_what_scores_too_little_is_left_out():
    weak = [Seen(square(0), score=0.29)]
    assert run_of(STRICT)([weak, weak, weak]) == ([[0], [0], [0]], 0)


def test_objects_beyond_the_slots_are_counted():
    frames = [
        [Seen(square(100.0 * i + 1000 * t), label=i % 3) for i in range(4)]
        for t in range(2)
    ]
    assert run_of(DEFAULT)([*frames, frames[0]]) == (
        [[1, 2, 3, 4], [5, 6, 0, 0], [1, 2, 3, 4]],
        2,
    )


@pytest.mark.parametrize("settings", [DEFAULT, STRICT], ids=["vis", "strict"])
def test_separated_objects_keep_their_names(settings):
    check_separated_objects(run_of(settings))


@pytest.mark.parametrize("settings", [DEFAULT, STRICT], ids=["vis", "strict"])
def test_padding_changes_nothing(settings):
    check_padding(run_of(settings))


@pytest.mark.parametrize("settings", [DEFAULT, STRICT], ids=["vis", "strict"])
def test_the_order_changes_names_alone(settings):
    check_order(run_of(settings))


def test_frame_by_frame_is_all_at_once():
    check_frame_by_frame(tracker_of(STRICT))
