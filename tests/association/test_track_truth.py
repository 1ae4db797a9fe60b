"""True objects of detections and tracks, against loops and cases drawn by hand."""

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.association.track_truth import (
    Identities,
    class_targets,
    identities,
    known_objects,
    match_targets,
    object_slots,
    primary_objects,
    scored_tracks,
    start_targets,
)

LENGTH, SLOTS, DETECTIONS, OBJECTS = 5, 6, 4, 3

primary = compiled(primary_objects, static_argnames="threshold")
identify = compiled(identities)
matches, starts = compiled(match_targets), compiled(start_targets)
of_classes = compiled(class_targets, static_argnames="duplicates")
know = compiled(known_objects, static_argnames="late")
scored = compiled(scored_tracks, static_argnames="birth_frame")
slots_of = compiled(object_slots, static_argnames=("objects", "whole_clip"))


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    both = np.prod(sides)
    areas = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    return both / (sum(areas) - both)


def literal_primary(boxes, valid, true_boxes, present):
    """Objects of one frame's detections, found by loops."""
    found = np.zeros(len(boxes), np.int32)
    real = np.flatnonzero(valid)
    for g in np.flatnonzero(present):
        ious = [overlap(boxes[n], true_boxes[g]) for n in real]
        if not ious:
            continue
        n = real[int(np.argmax(ious))]
        others = [overlap(boxes[n], true_boxes[k]) for k in np.flatnonzero(present)]
        prefers = np.flatnonzero(present)[int(np.argmax(others))]
        if prefers == g and max(ious) > 0.5:
            found[n] = g + 1
    return found


@pytest.mark.parametrize("seed", range(4))
def test_primary_objects_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (LENGTH, OBJECTS, 2))
    true_boxes = np.concatenate([low, low + rng.uniform(8, 16, low.shape)], -1)
    near = true_boxes[:, rng.integers(0, OBJECTS, 12)]
    boxes = (near + rng.normal(0, 1.5, near.shape)).astype(np.float32)
    true_boxes = true_boxes.astype(np.float32)
    valid = rng.random(boxes.shape[:2]) < 0.8
    present = rng.random(true_boxes.shape[:2]) < 0.8
    valid[0], present[1] = False, False
    boxes[~valid] = -1
    ours = primary(boxes, valid, true_boxes, present=present, threshold=0.5)
    exact = boxes.astype(float), valid, true_boxes.astype(float), present
    expected = [literal_primary(*(x[i] for x in exact)) for i in range(LENGTH)]
    np.testing.assert_array_equal(ours, expected)
    assert (ours > 0).sum() >= 4
    assert not ours[:2].any()


def test_only_the_best_detection_of_its_best_object_is_primary():
    true_boxes = np.array([[0, 0, 10, 10], [0, 2, 10, 12], [30, 0, 40, 10]], "f4")
    # Best for objects 0 and 1, prefers 1; second best; exactly a half of object 2.
    boxes = np.array([[0, 1.2, 10, 11.2], [0, -2, 10, 8], [30, 0, 40, 5]], "f4")
    every = np.ones((1, 3), bool)
    call = dict(present=every, threshold=0.5)
    found = primary(boxes[None], every, true_boxes[None], **call)
    np.testing.assert_array_equal(found, [[2, 0, 0]])
    larger = np.where(boxes == 5, 6, boxes).astype(np.float32)
    found = primary(larger[None], every, true_boxes[None], **call)
    np.testing.assert_array_equal(found, [[2, 0, 3]])


def test_two_detections_of_one_object_and_a_duplicate_track():
    # In frame 0 detection 0 opens slot 0 and detection 1, of the same object but less
    # well, slot 1. In frame 1 slot 2 is opened by the primary detection again.
    true_boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)[:, None]
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 6.5]] * 3, np.float32)
    boxes = boxes.reshape(3, 2, 4)
    objects = primary(
        boxes, np.ones((3, 2), bool), true_boxes,
        present=np.ones((3, 1), bool), threshold=0.5,
    )  # fmt: skip
    np.testing.assert_array_equal(objects, [[1, 0]] * 3)
    born = np.zeros((3, 4), bool)
    born[0, :2], born[1, 2] = True, True
    chosen = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    tracks = identify(born, chosen, objects)
    np.testing.assert_array_equal(tracks.owned, [1, 0, 0, 0])
    np.testing.assert_array_equal(tracks.objects, [1, 0, 1, 0])
    np.testing.assert_array_equal(tracks.birth, [0, 0, 1, 3])
    expected = np.zeros((3, 4, 2), bool)
    expected[1:, 0, 0] = True
    np.testing.assert_array_equal(matches(tracks, objects), expected)
    np.testing.assert_array_equal(
        starts(tracks, objects), [[True, False], [False, False], [False, False]]
    )
    labels = np.array([4], np.int32)
    known = np.ones(1, bool)
    plain = of_classes(tracks, labels, known=known, duplicates=False)
    np.testing.assert_array_equal(plain, [5, 0, 0, 0])
    released = of_classes(tracks, labels, known=known, duplicates=True)
    np.testing.assert_array_equal(released, [5, 0, 5, 0])


def test_the_released_code_knows_the_objects_of_the_first_frame():
    present = np.array([[True, False], [False, True], [False, False]])
    np.testing.assert_array_equal(know(present, late=True), [True] * 3)
    np.testing.assert_array_equal(know(present, late=False), [True, False, False])


def test_tracks_of_unknown_objects_are_background():
    owned = np.array([2, 1, 0, 3], np.int32)
    tracks = Identities(owned, owned, np.arange(4, dtype=np.int32))
    labels, known = np.array([4, 6, 0], np.int32), np.array([True, False, True])
    found = of_classes(tracks, labels, known=known, duplicates=False)
    np.testing.assert_array_equal(found, [0, 5, 0, 1])


def test_an_object_that_no_track_was_opened_for_is_to_be_opened_later():
    objects = np.array([[0, 1], [1, 0], [0, 1]], np.int32)
    born = np.zeros((3, 2), bool)
    born[1, 0] = True
    tracks = identify(born, np.zeros((3, 2), np.int32), objects)
    np.testing.assert_array_equal(
        starts(tracks, objects), [[False, True], [True, False], [False, False]]
    )


def clip(seed):
    """Random decisions: slots are opened in ascending order, by any detection."""
    rng = np.random.default_rng(seed)
    objects = np.zeros((LENGTH, DETECTIONS), np.int32)
    born = np.zeros((LENGTH, SLOTS), bool)
    chosen = rng.integers(0, DETECTIONS, (LENGTH, SLOTS)).astype(np.int32)
    free = 0
    for frame in range(LENGTH):
        order = rng.permutation(DETECTIONS)
        for g, n in zip(range(OBJECTS), order, strict=False):
            objects[frame, n] = (g + 1) * (rng.random() < 0.7)
        for n in rng.permutation(DETECTIONS)[: rng.integers(0, 3)]:
            if free < SLOTS:
                born[frame, free], chosen[frame, free] = True, n
                free += 1
    return objects, born, chosen


def literal(objects, born, chosen, frame_valid, whole_clip):
    """All targets, by following the memory from frame to frame."""
    memory, owned, raw, birth = {}, [0] * SLOTS, [0] * SLOTS, [LENGTH] * SLOTS
    match = np.zeros((LENGTH, SLOTS, DETECTIONS), bool)
    start = np.zeros((LENGTH, DETECTIONS), bool)
    before, after = [], []
    for frame in range(LENGTH):
        before.append(dict(memory))
        for n in range(DETECTIONS):
            target = objects[frame, n]
            if target in memory:
                match[frame, memory[target], n] = True
            start[frame, n] = target > 0 and target not in memory
        for m in np.flatnonzero(born[frame]):
            raw[m], birth[m] = objects[frame, chosen[frame, m]], frame
            if raw[m] and raw[m] not in memory:
                owned[m] = raw[m]
                memory[raw[m]] = m
        after.append(dict(memory))
    if whole_clip:
        after = [before[int(np.flatnonzero(frame_valid)[-1])]] * LENGTH
    slots = [[where.get(g + 1, -1) for g in range(OBJECTS)] for where in after]
    return Identities(*map(np.array, (owned, raw, birth))), match, start, slots


@pytest.mark.parametrize("whole_clip", [False, True])
def test_targets_are_those_of_a_loop_over_frames(whole_clip):
    duplicates = 0
    for seed in range(20):
        objects, born, chosen = clip(seed)
        frame_valid = np.arange(LENGTH) < LENGTH - seed % 2
        objects[~frame_valid], born[~frame_valid] = 0, False
        expected, match, start, slots = literal(
            objects, born, chosen, frame_valid, whole_clip
        )
        tracks = identify(born, chosen, objects)
        for ours, wanted in zip(tracks, expected, strict=True):
            np.testing.assert_array_equal(ours, wanted)
        np.testing.assert_array_equal(matches(tracks, objects), match)
        np.testing.assert_array_equal(starts(tracks, objects), start)
        found = slots_of(tracks, frame_valid, objects=OBJECTS, whole_clip=whole_clip)
        np.testing.assert_array_equal(found, slots)
        duplicates += (tracks.owned != tracks.objects).sum()
    assert duplicates > 5


def test_the_released_slots_are_those_before_the_last_frame():
    tracks = Identities(*(np.array(x, np.int32) for x in ([1, 2], [1, 2], [1, 2])))
    frame_valid = np.ones(3, bool)
    ours = slots_of(tracks, frame_valid, objects=2, whole_clip=False)
    np.testing.assert_array_equal(ours, [[-1, -1], [0, -1], [0, 1]])
    released = slots_of(tracks, frame_valid, objects=2, whole_clip=True)
    np.testing.assert_array_equal(released, [[0, -1]] * 3)


def test_tracks_are_scored_from_their_birth_or_the_frame_after():
    none = np.zeros(3, np.int32)
    tracks = Identities(none, none, np.array([0, 1, 3], np.int32))
    status = np.array([[1, 0, 0], [2, 1, 0], [1, 2, 0]], np.int32)
    ours = scored(status, tracks, birth_frame=True)
    np.testing.assert_array_equal(ours, status > 0)
    released = scored(status, tracks, birth_frame=False)
    np.testing.assert_array_equal(
        released, [[False] * 3, [True, False, False], [True, True, False]]
    )


def test_a_clip_without_objects_and_without_tracks_has_no_targets():
    objects = np.zeros((LENGTH, DETECTIONS), np.int32)
    tracks = identify(
        np.zeros((LENGTH, SLOTS), bool), np.zeros((LENGTH, SLOTS), np.int32), objects
    )
    assert not matches(tracks, objects).any()
    assert not starts(tracks, objects).any()
    found = slots_of(tracks, np.ones(LENGTH, bool), objects=2, whole_clip=False)
    assert (found == -1).all()
