import functools

import numpy as np
import pytest

from tests.trackers.contract import (
    FRAMES,
    SIZE,
    SLOTS,
    check_frame_by_frame,
    check_order,
    check_padding,
    check_separated_objects,
    runner,
)
from tests.trackers.frames import Seen, iou, random_frames, square
from vis_jax.trackers.iou import Settings, build

PAPER = Settings()
OTHER = Settings(filter_first=True, losers="new", refresh_labels=True)


@functools.cache
def run_of(settings):
    return runner(build(settings, SLOTS))


run = run_of(PAPER)


@pytest.mark.parametrize(("shift", "second"), [(5.0, 1), (6.0, 2), (40.0, 2)])
def test_a_jump_begins_a_track(shift, second):
    """IoU 1/3, 1/4 and 0; the least is 0.3."""
    assert run([[Seen(square(0))], [Seen(square(shift))]]) == ([[1], [second]], 0)


def test_a_track_is_found_again_where_it_was_last_seen():
    frames = [[Seen(square(0))], [Seen(square(3))], [], [Seen(square(6))]]
    assert run(frames)[0] == [[1], [1], [], [1]]


def test_when_the_threshold_comes_first_a_new_label_does_not_begin_a_track():
    """The other track has the class of the detection, but is far away."""
    frames = [
        [Seen(square(0), label=0), Seen(square(50), label=1)],
        [Seen(square(0), label=1)],
    ]
    assert run(frames)[0][1] == [3]
    assert run_of(OTHER)(frames)[0][1] == [1]


def test_losers_are_dropped_or_new():
    frames = [
        [Seen(square(0))],
        [Seen(square(0), score=0.5), Seen(square(0)), Seen(square(0))],
    ]
    assert run(frames)[0][1] == [0, 1, 0]
    assert run_of(OTHER)(frames)[0][1] == [2, 1, 3]


def test_the_label_is_that_of_birth_or_refreshed():
    refreshed = run_of(Settings(refresh_labels=True))
    apart = [
        [Seen(square(0), label=0), Seen(square(2), label=1)],
        [Seen(square(0), label=2)],  # takes the first track: IoU 1 against 2/3
        [Seen(square(1), label=2)],
        [Seen(square(2), label=2)],
    ]
    # Only where it is known that the first track has become class 2 does it go on.
    assert [row[0] for row in run(apart)[0][1:]] == [1, 1, 2]
    assert [row[0] for row in refreshed(apart)[0][1:]] == [1, 1, 1]


def literal(frames, settings):
    """The rule of the paper, one detection after the other."""
    boxes, labels, result, lost = [], [], [], 0
    for frame in frames:
        choices = [_choose(seen, boxes, labels, settings) for seen in frame]
        ids = [0] * len(frame)
        for i, seen in enumerate(frame):
            n, value = choices[i]
            rivals = [j for j, (m, _) in enumerate(choices) if n is not None and m == n]
            winner = max(rivals, key=lambda j: choices[j][1], default=None)
            if winner == i:
                ids[i] = n + 1
            elif n is None or settings.losers == "new":
                if len(boxes) == SLOTS:
                    lost += 1
                    continue
                boxes.append(seen.box)
                labels.append(seen.label)
                ids[i] = len(boxes)
        for seen, track_id in zip(frame, ids, strict=True):
            if track_id:
                boxes[track_id - 1] = seen.box
                if settings.refresh_labels:
                    labels[track_id - 1] = seen.label
        result.append(ids)
    return result, lost


def _choose(seen, boxes, labels, settings):
    """The track and its v, or None."""
    best = (None, -np.inf)
    for n, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        overlap = iou(seen.box, box)
        v = settings.detection * np.log(seen.score) + settings.iou * overlap
        v += settings.category * (seen.label == label)
        if v > best[1] and (overlap >= settings.min_iou or not settings.filter_first):
            best = (n, v)
    n, v = best
    if n is not None and iou(seen.box, boxes[n]) < settings.min_iou:
        return None, v
    return n, v


@pytest.mark.parametrize("settings", [PAPER, OTHER], ids=["paper", "other"])
def test_matches_a_loop_over_the_detections(settings):
    names, losses = set(), 0
    for seed in range(40):
        frames = random_frames(np.random.default_rng(seed), FRAMES, SIZE)
        expected = literal(frames, settings)
        assert run_of(settings)(frames) == expected, seed
        names |= {x for row in expected[0] for x in row}
        losses += expected[1]
    assert names == set(range(SLOTS + 1))
    assert losses > 0


def test_separated_objects_keep_their_names():
    check_separated_objects(run)


def test_padding_changes_nothing():
    check_padding(run)


def test_the_order_changes_names_alone():
    check_order(run)


def test_frame_by_frame_is_all_at_once():
    check_frame_by_frame(build(PAPER, SLOTS))
