"""Tracks in hand-made videos.

The network decides by pairs, with weights by hand: the logit of a match is
10 relu(2 IoU - 1) - 5, of a start the negative of the best match, 10 with no track. It
knows nothing but the boxes that a track and a detection have.
"""

import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.association.track_decisions import ACTIVE, FREE, INACTIVE, Thresholds
from vis_jax.association.track_graph import (
    GraphFrame,
    Settings,
    TrackGraph,
    empty_memory,
)
from vis_jax.params import flatten, unflatten

TRACKS, MOST = 24, 26  # slots; detections of a frame
WIDTH, CLASSES, DIM = 2, 3, 4
EVEN = Thresholds(0.0, 0.0)
LENIENT = Thresholds(0.0, -6.0)  # a start is likely enough beside a match


def _frame(*places: float) -> GraphFrame:
    """Objects of 10 x 10 pixels from these columns, the best first."""
    left = np.zeros(MOST)
    left[: len(places)] = places
    valid = np.arange(MOST) < len(places)
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1)
    return GraphFrame(
        valid=valid,
        logits=np.zeros((MOST, CLASSES), np.float32),
        scores=valid.astype(np.float32),
        boxes=np.where(valid[:, None], boxes, -1).astype(np.float32),
        appearance=np.zeros((MOST, WIDTH), np.float32),
        background=np.zeros(WIDTH, np.float32),
        real=np.bool_(True),
    )


@functools.cache
def _follow(keep_boxes: bool, thresholds: Thresholds):
    """A function of a stack of frames: the last memory, and what was decided."""
    settings = Settings(
        tracks=TRACKS, dim=DIM, decide="pairs", looks="none", keep_boxes=keep_boxes
    )
    module = TrackGraph(settings, WIDTH, CLASSES)
    call = functools.partial(
        module.apply, canvas=(64, 1024), thresholds=thresholds, cues=False
    )
    memory = empty_memory(settings, WIDTH)
    init = functools.partial(module.init, **call.keywords)
    shapes = jax.eval_shape(init, jax.random.key(0), memory, _frame())
    weights = {
        path: np.zeros(x.shape, np.float32) for path, x in flatten(dict(shapes)).items()
    }
    for layer, weight in enumerate((1.0, 1.0, 10.0)):
        weights[f"params/say/match/layers_{layer}/kernel"][0, 0] = weight
    weights["params/say/match/layers_2/bias"][0] = -5.0
    variables = unflatten(weights)

    def follow(frames: GraphFrame):
        return jax.lax.scan(lambda m, x: call(variables, m, x), memory, frames)

    return compiled(follow)


def _video(*frames, keep_boxes=True, thresholds=EVEN):
    """Follows objects at the columns that each frame lists."""
    stack = jax.tree.map(
        lambda *x: np.stack(x), *(_frame(*places) for places in frames)
    )
    return _follow(keep_boxes, thresholds)(stack)


def _slots(linked, frame: int, detection: int) -> list[int]:
    """Tracks that have a detection."""
    has = (linked.status[frame] == ACTIVE) & (linked.chosen[frame] == detection)
    return np.flatnonzero(has).tolist()


HIDDEN = [(0, 100), (100,), (100,), (100,), (100, 0)]


def test_an_object_that_is_hidden_for_three_frames_keeps_its_track():
    memory, linked = _video(*HIDDEN)
    assert _slots(linked, 0, 0) == [0]
    np.testing.assert_array_equal(linked.status[1:4, 0], [INACTIVE] * 3)
    assert _slots(linked, 4, 1) == [0]
    # Its neighbour never lost its own, and no other track was begun.
    assert [_slots(linked, t, 0) for t in range(1, 5)] == [[1]] * 4
    np.testing.assert_array_equal(linked.born.sum(axis=1), [2, 0, 0, 0, 0])
    assert (memory.status != FREE).sum() == 2


def test_without_the_last_box_a_hidden_object_comes_back_as_another():
    """The released code: nothing else is known here of an object out of sight."""
    _, linked = _video(*HIDDEN, keep_boxes=False)
    np.testing.assert_array_equal(linked.status[4, :3], [INACTIVE, ACTIVE, ACTIVE])
    assert _slots(linked, 4, 1) == [2]


def test_an_object_that_appears_late_gets_the_next_slot():
    _, linked = _video((0, 100), (0, 100), (200, 0, 100))
    assert _slots(linked, 2, 0) == [2]
    np.testing.assert_array_equal(np.argwhere(linked.born), [[0, 0], [0, 1], [2, 2]])


def test_a_frame_without_detections_leaves_all_tracks_inactive():
    memory, linked = _video((), (0, 100), (), (100, 0))
    np.testing.assert_array_equal(linked.status[:, 0], [FREE, ACTIVE, INACTIVE, ACTIVE])
    assert (linked.status[2] != ACTIVE).all()
    assert not linked.born[[0, 2, 3]].any()
    assert (_slots(linked, 3, 0), _slots(linked, 3, 1)) == ([1], [0])
    assert memory.lost == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((memory, linked)))


@pytest.mark.parametrize("keep_boxes", [True, False])
def test_of_25_objects_the_least_certain_finds_the_memory_full(keep_boxes):
    """No track is ever given up, in the paper and in the released code."""
    every = tuple(20.0 * n for n in range(25))
    memory, linked = _video(every, every[::-1], (700.0,), keep_boxes=keep_boxes)
    assert [_slots(linked, 0, n) for n in range(25)] == [[n] for n in range(24)] + [[]]
    # The order of the next frame is another: who has a track keeps it.
    assert [_slots(linked, 1, 24 - n) for n in range(25)] == [
        *([n] for n in range(24)),
        [],
    ]
    # Where all are out of sight, their slots are still taken.
    assert (linked.status[2] == INACTIVE).all()
    assert memory.lost == 3


def test_two_detections_of_an_object_begin_two_tracks_which_go_on_with_one():
    _, linked = _video((0, 1), (0,), (0, 1))
    np.testing.assert_array_equal(linked.born.sum(axis=1), [2, 0, 0])
    assert _slots(linked, 1, 0) == [0, 1]
    # Each prefers its own last box, which is the same: the first of equals.
    assert _slots(linked, 2, 0) == [0, 1]
    assert _slots(linked, 2, 1) == []


def test_a_detection_that_a_track_has_may_begin_another():
    memory, linked = _video((0,), (0,), thresholds=LENIENT)
    assert _slots(linked, 1, 0) == [0, 1]
    np.testing.assert_array_equal(np.argwhere(linked.born), [[0, 0], [1, 1]])
    assert (memory.status != FREE).sum() == 2


def test_padded_frames_change_nothing():
    frames = [_frame(0, 100), _frame(200)._replace(real=np.bool_(False)), _frame(100)]
    stack = jax.tree.map(lambda *x: np.stack(x), *frames)
    padded, _ = _follow(True, EVEN)(stack)
    plain, _ = _video((0, 100), (100,))
    jax.tree.map(np.testing.assert_array_equal, padded, plain)
