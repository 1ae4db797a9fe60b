"""Ids of IAI: targets in training, unique assignment, issuing, maps of ids."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.compiled import compiled
from vis_jax.association import identity
from vis_jax.association.identity import BLANK

sequence = compiled(identity.sequence_ids, static_argnames="count")
assign = compiled(identity.unique_ids)
issue = compiled(identity.issue_ids, static_argnames=("count", "capacity"))
visible = compiled(identity.visible_masks)
paint_truth = compiled(identity.truth_map, static_argnames="background")
paint = compiled(identity.detection_map, static_argnames="background")


# Training.


def _present(frames, objects):
    """[M, T] from the annotation ids of each frame; row m is annotation m."""
    return np.array([[m in frame for frame in frames] for m in range(objects)])


def _targets(frames, count, objects):
    """Targets in the order of annotation ids, and the count of objects dropped."""
    found = sequence(
        np.arange(1, objects + 1, dtype=np.int32),
        _present(frames, objects),
        count=count,
    )
    targets = [
        [int(found.targets[t, m]) for m in sorted(frame)]
        for t, frame in enumerate(frames)
    ]
    return targets, found


def test_targets_of_the_worked_example():
    frames = [[0, 1], [0, 1, 2], [1, 2], [0], [0, 3]]
    targets, found = _targets(frames, 20, 5)
    assert targets == [[19, 19], [0, 1, 19], [1, 2], [0], [0, 19]]
    np.testing.assert_array_equal(found.ids, [0, 1, 2, 3, 20])
    np.testing.assert_array_equal(found.targets[3], [0, 20, 20, 20, 20])
    np.testing.assert_array_equal(found.kept, [True] * 4 + [False])
    assert found.dropped == 0


def test_ids_of_eight_and_more_and_after_an_absence():
    # The released code relabels the wrong object here: sets of Python are not sorted.
    everyone = list(range(10))
    frames = [[m for m in everyone if m != 8], [1, 8], [2], [1, 8]]
    targets, _ = _targets(frames, 20, 10)
    assert targets == [[19] * 9, [1, 19], [2], [1, 8]]


def test_ids_follow_annotations_not_slots_or_appearance():
    # Annotation 9 comes first in the video, 4 in the arrays; 7 is never seen.
    tracks = np.array([4, 9, 7, 0, 2], np.int32)
    present = np.zeros((5, 3), bool)
    present[[0, 4], 1:], present[1] = True, True
    found = sequence(tracks, present, count=6)
    np.testing.assert_array_equal(found.ids, [1, 2, 6, 6, 0])
    expected = [[6, 5, 6, 6, 6], [5, 2, 6, 6, 5], [1, 2, 6, 6, 0]]
    np.testing.assert_array_equal(found.targets, expected)


def test_objects_beyond_the_ids_are_dropped_and_counted():
    targets, found = _targets([[0, 1, 2, 3, 4, 5]] * 2, 5, 6)
    assert targets == [[4, 4, 4, 4, 5, 5], [0, 1, 2, 3, 5, 5]]
    assert found.dropped == 2
    np.testing.assert_array_equal(found.kept, [True] * 4 + [False] * 2)


def test_drawn_ids_are_different_and_below_the_new_one():
    tracks, present = np.arange(1, 6, dtype=np.int32), np.ones((5, 2), bool)
    present[2] = False
    drawn = set()
    for seed in range(20):
        found = sequence(tracks, present, count=7, key=jax.random.key(seed))
        ids = found.ids[found.kept]
        assert len(set(ids)) == len(ids) == 4 and ids.max() <= 5
        assert (found.targets[0] == np.where(found.kept, 6, 7)).all()
        np.testing.assert_array_equal(found.targets[1], found.ids)
        drawn |= set(ids.tolist())
    assert drawn == set(range(6))


def test_drawn_ids_of_too_many_objects():
    tracks, present = np.arange(1, 6, dtype=np.int32), np.ones((5, 2), bool)
    found = sequence(tracks, present, count=4, key=jax.random.key(0))
    assert sorted(found.ids) == [0, 1, 2, 4, 4] and found.dropped == 2


# Maps of ids.


def test_the_smallest_mask_owns_a_pixel():
    masks = np.zeros((4, 4, 6), bool)
    masks[0], masks[1, :2], masks[2, 0, :3], masks[3] = True, True, True, True
    ids = np.array([5, 1, 2, 3], np.int32)
    valid = np.array([True, True, True, False])
    found = paint_truth(masks, ids, valid, background=9)
    expected = np.full((4, 6), 5)
    expected[:2], expected[0, :3] = 1, 2
    np.testing.assert_array_equal(found, expected)
    masks[0, 3] = False
    found = paint_truth(masks, ids, valid, background=9)
    np.testing.assert_array_equal(found[3], [9] * 6)


@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_of_a_truth_map_has_one_channel(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 8, 9)) < rng.random((6, 1, 1))
    ids, valid = rng.permutation(6).astype(np.int32), rng.random(6) < 0.7
    found = paint_truth(masks, ids, valid, background=7)
    areas = masks.sum(axis=(1, 2))
    for y, x in np.ndindex(8, 9):
        here = [m for m in range(6) if valid[m] and masks[m, y, x]]
        owner = min(here, key=lambda m: (areas[m], m), default=None)
        assert found[y, x] == (7 if owner is None else ids[owner])


# Overlap.


def test_hidden_detections_are_dropped_but_still_hide():
    masks = np.zeros((4, 32, 32), bool)
    masks[0, :16, :16] = True
    masks[1, :16, :15] = True  # inside the first
    masks[2] = True
    masks[3, :16] = True
    found = visible(masks, np.array([True, True, True, True]))
    np.testing.assert_array_equal(found.kept, [True, False, True, False])
    np.testing.assert_array_equal(found.masks.sum(axis=(1, 2)), [256, 0, 768, 0])
    assert (found.masks.sum(axis=0) <= 1).all()


def test_what_a_dropped_detection_covers_stays_covered():
    masks = np.zeros((3, 4, 20), bool)
    masks[0, :, :19], masks[1], masks[2, :, 10:] = True, True, True
    # 1 / 20 of the second is left, too little; the third does not get that column.
    found = visible(masks, np.ones(3, bool))
    np.testing.assert_array_equal(found.kept, [True, False, False])
    # Where the second is padding, it covers nothing: 1 / 10 of the third is enough.
    found = visible(masks, np.array([True, False, True]))
    np.testing.assert_array_equal(found.kept, [True, False, True])
    assert found.masks[2].sum() == 4
    empty = visible(np.zeros((3, 4, 20), bool), np.ones(3, bool))
    assert not empty.kept.any()


# Assignment.


def literal_assignment(scores):
    """The largest total for L detections, and the columns that reach it, by SciPy."""
    count = len(scores)
    none, new = np.zeros((count, 1)), np.repeat(scores[:, -1:], max(count - 1, 0), 1)
    table = np.concatenate([scores, none, new], axis=1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum(), columns


@pytest.mark.parametrize(("detections", "count"), [(10, 20), (7, 4)])
def test_assignment_is_that_of_scipy_for_random_valid_masks(detections, count):
    rng = np.random.default_rng(count)
    known = set()
    for trial in range(30):
        scores = rng.random((detections, count)).astype(np.float32) ** 3
        valid = rng.random(detections) < rng.random()
        if trial < 2:
            valid[:] = np.arange(detections) < trial  # none, one
        columns = assign(scores, valid)[valid]
        assert len(set(columns)) == valid.sum()
        best, expected = literal_assignment(scores[valid].astype(float))
        table = np.concatenate([scores, np.zeros((detections, 1))], axis=1)[valid]
        picked = np.where(columns > count, count - 1, columns)
        total = table[np.arange(len(picked)), picked].sum()
        np.testing.assert_allclose(total, best, rtol=1e-6)
        # Which of the places for new objects is taken makes no difference.
        expected = np.where(expected > count, count - 1, expected)
        np.testing.assert_array_equal(picked, expected)
        known |= set(picked.tolist())
    assert {0, count - 1} <= known


def test_two_detections_that_claim_one_id():
    valid = np.ones(2, bool)
    # .9 + .5 is more than .8 + .3: the second becomes new, as that beats its next id.
    scores = np.array([[0.9, 0.2, 0.1, 0.3], [0.8, 0.1, 0.2, 0.5]], np.float32)
    np.testing.assert_array_equal(assign(scores, valid), [0, 3])
    # Here the total is larger if the weaker one keeps the id.
    scores = np.array([[0.9, 0.2, 0.1, 0.8], [0.8, 0.1, 0.2, 0.3]], np.float32)
    np.testing.assert_array_equal(assign(scores, valid), [3, 0])
    # No id and not new: the best of the other ids, above "none" at 0.
    scores = np.array([[0.9, 0.2, 0.1, 0.0], [0.8, 0.1, 0.2, 0.1]], np.float32)
    np.testing.assert_array_equal(assign(scores, valid), [0, 2])


# Issuing.


def _issue(columns, issued, count, capacity, valid=None):
    columns = np.array(columns, np.int32)
    valid = np.ones(len(columns), bool) if valid is None else np.array(valid)
    start = np.int32(issued)
    return issue(columns, valid, start, count=count, capacity=capacity)


def _areas(found, masks, count):
    ids = paint(masks, found.ids, found.valid, background=count)
    return [int((ids == channel).sum()) for channel in range(count)], ids


def _squares(number, side=8):
    """Disjoint squares, the last one half as large."""
    masks = np.zeros((number, side, side * number), bool)
    for index in range(number):
        masks[index, :, side * index : side * (index + 1)] = True
    masks[-1, : side // 2] = False
    return masks


def test_the_code_overwrites_its_last_id():
    masks = _squares(5)
    found = _issue([4] * 5, 0, 5, "code")
    areas, ids = _areas(found, masks, 5)
    assert areas == [64, 64, 64, 32, 0]
    assert found.issued == 3 and found.new.all() and found.valid.all()
    assert found.lost == 2
    # Overwritten pixels have no channel at all; the rest is background.
    assert (ids == BLANK).sum() == 64 and (ids == 5).sum() == 32


def test_the_code_calls_its_last_id_new_for_ever():
    first = _issue([19] * 21, 0, 20, "code")
    areas, _ = _areas(first, _squares(21), 20)
    assert [i for i, area in enumerate(areas) if area] == list(range(19))
    assert first.issued == 18 and first.new.any() and first.lost == 3
    second = _issue([0, 17, 18], first.issued, 20, "code")
    np.testing.assert_array_equal(second.ids, [0, 17, 18])
    np.testing.assert_array_equal(second.new, [False, False, True])
    assert second.issued == 18 and second.lost == 1


def test_the_paper_discards_what_finds_no_id():
    masks = _squares(6)
    found = _issue([4] * 6, 0, 5, "paper")
    np.testing.assert_array_equal(found.ids, [0, 1, 2, 3, 5, 5])
    np.testing.assert_array_equal(found.valid, [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(found.new, found.valid)
    assert found.issued == 4 and found.lost == 2
    areas, ids = _areas(found, masks, 5)
    assert areas == [64, 64, 64, 64, 0] and (ids == 5).sum() == 128
    # 19 ids of 20, and nothing new afterwards.
    full = _issue([19] * 21, 0, 20, "paper")
    assert full.issued == 19 and full.lost == 2
    after = _issue([18, 19, 3], full.issued, 20, "paper")
    np.testing.assert_array_equal(after.ids, [18, 20, 3])
    assert not after.new.any() and after.lost == 1 and after.issued == 19


@pytest.mark.parametrize("capacity", ["paper", "code"])
def test_detections_that_are_new_get_the_next_ids_in_order(capacity):
    scores = np.full((3, 5), 0.05, np.float32)
    scores[0, 0], scores[1, 4], scores[2, 4] = 0.9, 0.8, 0.7
    columns = assign(scores, np.ones(3, bool))
    found = _issue(columns, 2, 5, capacity)
    np.testing.assert_array_equal(found.ids, [0, 2, 3])
    np.testing.assert_array_equal(found.new, [False, True, True])
    assert found.issued == {"paper": 4, "code": 3}[capacity]
    # An id not given away yet means a new object, too.
    found = _issue([3, 0, 1], 2, 6, capacity, valid=[True, True, False])
    np.testing.assert_array_equal(found.ids, [2, 0, 6])
    assert found.issued == 3


def test_no_id_is_given_twice_over_a_video():
    rng = np.random.default_rng(3)
    issued, births = np.int32(0), []
    for _ in range(40):
        scores = rng.random((6, 12)).astype(np.float32) ** 4
        valid = rng.random(6) < 0.6
        columns = assign(scores, valid)
        found = issue(columns, valid, issued, count=12, capacity="paper")
        ids = found.ids[found.valid]
        assert len(set(ids)) == len(ids) and ids.max(initial=-1) < found.issued
        assert (found.ids[~found.valid] == 12).all()
        births += found.ids[found.new].tolist()
        assert found.issued >= issued
        issued = found.issued
    assert births == list(range(11))
