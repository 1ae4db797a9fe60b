"""The bank of tracks, on objects that are blocks of pixels."""

import functools

import jax
import numpy as np
import pytest

from vis_jax.association.stitch import (
    Instances,
    empty_bank,
    overlapping_clips,
    read_bank,
    stitch,
)

LENGTH, TRACKS, INSTANCES, CLASSES = 3, 5, 4, 2
# Where the objects are: rows and columns of a frame of 8 x 8 pixels.
LEFT, RIGHT = slice(0, 4), slice(4, 8)
PLACES = {
    "a": (slice(0, 2), LEFT),
    "b": (slice(3, 5), LEFT),
    "c": (slice(6, 8), LEFT),
    "d": (slice(0, 2), RIGHT),
    "e": (slice(3, 5), RIGHT),
}


@functools.cache
def _step(link):
    def step(bank, found, frame_valid, shift):
        bank = stitch(bank, found, frame_valid, shift=shift, link=link)
        return bank, read_bank(bank)

    return jax.jit(step)


def _bank(tracks=TRACKS):
    return empty_bank(tracks, 2, CLASSES, LENGTH, (8, 8))


def _found(places, scores=None, sharp=8.0):
    """Makes a clip's instances: each object in all of its frames, class 0.

    Args:
      places: their names, or rows and columns.
    """
    logits = np.full((LENGTH, INSTANCES, 8, 8), -sharp, np.float32)
    probs = np.zeros((INSTANCES, CLASSES), np.float32)
    for i, place in enumerate(places):
        rows, columns = PLACES[place] if isinstance(place, str) else place
        logits[:, i, rows, columns] = sharp
        probs[i] = 0.9 if scores is None else scores[i], 0.1
    return Instances(probs, logits, np.arange(INSTANCES) < len(places))


def _run(clips, *, link="siou", stride=1, tracks=TRACKS):
    """Predictions after each clip."""
    bank, out = _bank(tracks), []
    for index, found in enumerate(clips):
        shift = np.int32(stride if index else LENGTH)
        bank, said = _step(link)(bank, found, np.ones(LENGTH, bool), shift)
        out.append(jax.tree.map(np.asarray, said))
    return out


def _ids(said):
    return said.track_ids[said.valid].tolist()


def _places(said):
    """Number of the track at each place of the first frame."""
    masks = (said.mask_logits[0] > 0) & (said.slots[0] >= 0)[:, None, None]
    corners = {name: (rows.start, cols.start) for name, (rows, cols) in PLACES.items()}
    return {
        name: int(said.track_ids[i])
        for name, corner in corners.items()
        for i in np.flatnonzero(said.valid & masks[:, *corner])
    }


@pytest.mark.parametrize("link", ["siou", "eq4"])
def test_equal_clips_have_equal_tracks(link):
    said = _run([_found("abc")] * 4, link=link)
    for one in said:
        assert _ids(one) == [1, 2, 3]
        assert _places(one) == {"a": 1, "b": 2, "c": 3}
    expected = _found("abc")
    np.testing.assert_allclose(said[-1].class_probs[:3], expected.class_probs[:3])
    np.testing.assert_allclose(said[-1].mask_logits[:, :3], expected.mask_logits[:, :3])


@pytest.mark.parametrize("link", ["siou", "eq4"])
def test_the_order_within_a_clip_does_not_matter(link):
    said = _run([_found("abc"), _found("cab"), _found("bca")], link=link)
    assert [_places(one) for one in said] == [{"a": 1, "b": 2, "c": 3}] * 3


@pytest.mark.parametrize("link", ["siou", "eq4"])
def test_objects_without_overlap_never_share_a_track(link):
    said = _run([_found("a"), _found("b"), _found("c")], link=link)
    assert _ids(said[-1]) == [1, 2, 3]
    # The frame that the first two clips had: neither of their masks is blurred by c.
    bank = said[-1]
    for number, last in ((1, 1), (2, 2), (3, 3)):
        (index,) = np.flatnonzero(bank.track_ids == number)
        found = bank.slots[:, index] == index
        assert found.tolist() == [frame < last for frame in range(LENGTH)]


def test_masks_and_classes_are_means_over_the_clips_of_a_track():
    said = _run([_found("a", [0.8], sharp=2.0), _found("a", [0.4], sharp=6.0)])[-1]
    np.testing.assert_allclose(said.class_probs[0], [0.6, 0.1], rtol=1e-6)
    # Two frames of both clips, one of the second alone.
    np.testing.assert_allclose(said.mask_logits[:, 0, 0, 0], [4.0, 4.0, 6.0])


def test_a_track_that_pauses_for_less_than_a_clip_goes_on():
    said = _run([_found("ab"), _found("a"), _found("ab")])
    assert _places(said[-1]) == {"a": 1, "b": 2}
    # The middle clip does not count for the class of b.
    (index,) = np.flatnonzero(said[-1].track_ids == 2)
    np.testing.assert_allclose(said[-1].class_probs[index], [0.9, 0.1], rtol=1e-6)


def test_a_track_that_is_gone_for_a_clip_leaves_its_slot():
    said = _run([_found("ab")] + [_found("a")] * 3 + [_found("ab")], tracks=4)
    assert _ids(said[3]) == [1]
    assert _places(said[4]) == {"a": 1, "b": 3}


def test_a_new_track_in_a_freed_slot_begins_with_no_classes():
    said = _run([_found("a", [0.9]), _found("b", [0.4])], stride=LENGTH, tracks=4)[-1]
    assert _ids(said) == [2]
    np.testing.assert_allclose(said.class_probs[said.valid], [[0.4, 0.1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("columns", "ids"),
    [((2, 6), [1]), ((3, 7), [1, 2])],  # IoU 2 / 30 and 1 / 31; a track needs 0.05
)
def test_little_overlap_continues_a_track_but_not_less(columns, ids):
    first = (slice(0, 4), slice(0, 4))
    second = (slice(3, 7), slice(*columns))
    said = _run([_found([first], [0.5]), _found([second], [0.9])])[-1]
    assert _ids(said) == ids


def test_many_more_tracks_than_slots_pass_through():
    names = "abc" * 7
    said = _run([_found(name) for name in names], stride=2, tracks=4)
    assert max(_ids(said[-1])) == len(names)
    assert said[-1].valid.sum() == 2  # with the clip before one frame is shared


def test_of_new_objects_the_best_get_the_free_slots():
    said = _run([_found("abc"), _found("de", [0.8, 0.7])], tracks=4)
    assert _places(said[-1]) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_objects_beyond_the_slots_are_counted():
    said = _run([_found("abc"), _found("de"), _found("abe"), _found("b")], tracks=4)
    assert [int(one.lost) for one in said] == [0, 1, 2, 2]


def test_padding_at_the_end_of_a_short_video_counts_for_nothing():
    valid = np.array([True, True, False])
    found = _found("a")
    bank, said = _step("siou")(_bank(), found, valid, np.int32(LENGTH))
    np.testing.assert_array_equal(said.slots[:, 0] == 0, valid)
    assert np.isfinite(said.mask_logits).all()


@pytest.mark.parametrize(
    ("length", "stride", "expected"), [(5, 1, 4), (5, 3, 2), (5, 4, 1), (2, 1, 1)]
)
def test_clips_that_share_a_frame_with_the_next(length, stride, expected):
    assert overlapping_clips(length, stride) == expected
