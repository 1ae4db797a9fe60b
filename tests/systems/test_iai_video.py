import functools

import jax
import numpy as np
import pytest

from vis_jax.detectors.id_objects import IdObjects
from vis_jax.systems.iai_video import IdentityRules, name_frame, report, start_video

SIDE = 40  # pixels of the canvas
CLASSES = 2
MOST = 4  # detections of a frame
PAPER = IdentityRules(12, 11, "paper", "all_frames", 0.05)


def objects_of(rules, ids, most):
    """Objects with masks apart from each other.

    Args:
      rules: how they get identities.
      ids: the identity each one looks like; the last one for new objects.
      most: detections of a frame.
    """
    masks = np.zeros((most, SIDE, SIDE), bool)
    named = np.full((most, rules.ids), 0.01)
    for row, number in enumerate(ids):
        y, x = divmod(row, 5)
        masks[row, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
        if rules.ids:
            named[row, number] = 0.8
    valid = np.arange(most) < len(ids)
    objects = IdObjects(
        np.zeros((most, 4), np.float32), np.full((most, CLASSES), 0.5, np.float32),
        np.float32(named), np.zeros((most, 2, 2), np.float32), valid,
    )  # fmt: skip
    return objects, masks


@functools.cache
def namer(rules):
    return jax.jit(functools.partial(name_frame, rules))


def follow(frames, rules=PAPER, most=MOST, real=None):
    """The identities shown in each frame, and what came of the last."""
    video = jax.device_get(start_video(rules, CLASSES))
    slots = []
    for number, ids in enumerate(frames):
        there = np.bool_(real is None or real[number])
        named = namer(rules)(video, *objects_of(rules, ids, most), there)
        named = jax.device_get(named)
        video = named.video
        slots.append(named.slots[: len(ids)].tolist())
    return slots, named


def told(rules, named):
    """Returns the predictions after a single frame."""
    masks = np.zeros((1, len(named.slots), 2, 2), np.float32)
    tell = jax.jit(functools.partial(report, rules))
    return jax.device_get(tell(named.video, named.slots[None], masks))


NEW = 11  # the last of 12


def test_objects_keep_their_ids_and_a_late_one_gets_a_fresh_one():
    slots, named = follow([[NEW, NEW], [1, 0], [0, NEW, 1]])
    assert slots == [[0, 1], [1, 0], [0, 2, 1]]
    assert named.video.issued == 3
    assert named.new


def test_an_object_hidden_for_three_frames_keeps_its_id():
    frames = [[NEW, NEW], [0], [0], [0], [1, 0, NEW]]
    assert follow(frames)[0][-1] == [1, 0, 2]


def test_no_id_is_given_away_twice():
    assert follow([[NEW], [], [NEW], [NEW]])[0] == [[0], [], [1], [2]]


def test_padding_changes_nothing():
    slots, named = follow([[NEW], [NEW, NEW]], real=[True, False])
    assert slots == [[0], [-1, -1]]
    before = follow([[NEW]])[1].video
    jax.tree.map(np.testing.assert_array_equal, named.video, before)


@pytest.mark.parametrize(("capacity", "given"), [("paper", 11), ("code", 10)])
def test_of_25_objects_those_beyond_the_ids_are_lost(capacity, given):
    rules = PAPER._replace(capacity=capacity)
    slots, named = follow([[NEW] * 25], rules, most=25)
    assert slots[0] == [*range(given), *[-1] * (25 - given)]
    assert named.video.issued == given
    seen = told(rules, named)
    assert seen.lost == 25 - given
    assert seen.valid.tolist() == [True] * given + [False] * (11 - given)


def test_the_id_map_has_the_ids_and_the_background():
    _, named = follow([[NEW, NEW]])
    assert named.painted.shape == (SIDE, SIDE)
    assert set(np.unique(named.painted)) == {0, 1, 12}
    assert named.painted[4, 4] == 0
    assert named.painted[4, 12] == 1


def test_without_identities_the_rank_is_the_id_and_the_map_has_no_names():
    rules = PAPER._replace(ids=0, slots=MOST)
    slots, named = follow([[0, 0], [0], [0, 0, 0]], rules)
    assert slots == [[0, 1], [0], [0, 1, 2]]
    assert set(np.unique(named.painted)) == {0, 1}
    assert not named.new
    seen = told(rules, named)
    assert seen.valid.tolist() == [True, True, True, False]
    assert seen.lost == 0


def test_ranks_leave_out_hidden_detections():
    rules = PAPER._replace(ids=0, slots=MOST)
    objects, masks = objects_of(rules, [0, 0, 0], MOST)
    masks[1] = masks[0]
    video = start_video(rules, CLASSES)
    named = namer(rules)(video, objects, masks, np.bool_(True))
    assert named.slots.tolist() == [0, -1, 1, -1]
    assert told(rules, jax.device_get(named)).valid.tolist() == [1, 1, 0, 0]


def test_scores_are_the_means_over_the_frames():
    _, named = follow([[NEW, NEW], [0]])
    for over, expected in (("all_frames", [0.5, 0.25]), ("detected", [0.5, 0.5])):
        seen = told(PAPER._replace(over=over), named)
        np.testing.assert_allclose(seen.class_probs[:2, 0], expected)
    high = told(PAPER._replace(least=0.3), named)
    np.testing.assert_allclose(high.class_probs[:2, 0], [0.5, 0.0])
