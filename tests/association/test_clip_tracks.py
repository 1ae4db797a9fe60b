"""Linking of clip tracks: MaskProp's Eq. 4 and 5."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association import literal_clip_tracks as literal
from tests.association.literal_clip_tracks import Clips
from tests.compiled import compiled
from vis_jax.association.clip_tracks import (
    ClipTracks,
    ContinuationRule,
    class_probs,
    clip_scores,
    free_ended,
    link,
    no_links,
    track_scores,
)

CELLS = 8  # of a frame, in one row
CLASSES = 3
SLOTS = 12
MOST = 3  # objects of a frame
SOFT = ContinuationRule(0.3, unique=True)


@functools.cache
def _step(unique):
    """Compiled: links a frame; one program for all thresholds and lengths."""

    @compiled
    def step(links, frame, threshold):
        before = free_ended(links)
        scores = clip_scores(before, frame), track_scores(before, frame)
        rule = SOFT._replace(threshold=threshold, unique=unique)
        links, named = link(before, frame, rule)
        ids = jnp.where(named.slots >= 0, links.track_ids[named.slots], 0)
        return links, (ids, named, scores)

    return step


@functools.cache
def _no_links(radius, slots):
    sizes = dict(classes=CLASSES, size=(1, CELLS))
    return compiled(functools.partial(no_links, radius, MOST, slots, **sizes))()


_class_probs = compiled(class_probs, static_argnums=1)


def run(clips, rule=SOFT, slots=SLOTS):
    """The state after the video, and what was said of every frame."""
    links, said = _no_links(literal.radius_of(clips), slots), []
    for frame in zip(*_frames(clips), strict=True):
        threshold = np.float32(rule.threshold)
        links, found = _step(rule.unique)(links, ClipTracks(*frame), threshold)
        said.append(found)
    return links, jax.tree.map(lambda *x: np.stack(x), *said)


def _frames(clips):
    """The arguments of `link`, frame by frame; where nothing is, there is junk."""
    length, radius = len(clips.masks), literal.radius_of(clips)
    real = np.zeros((length, 2 * radius + 1), bool)
    for t, d in np.ndindex(real.shape):
        real[t, d] = 0 <= t + d - radius < length
    masks = np.where(real[:, None, :, None], clips.masks, 0.77)
    masks = np.where(clips.valid[..., None, None], masks, 0.66)
    return ClipTracks(
        np.float32(masks[..., None, :]), clips.valid, real, np.float32(clips.scores)
    )


def identities(clips, rule=SOFT, **options):
    """The ids of the valid objects of every frame, in order."""
    _, (ids, named, _) = run(clips, rule, **options)
    assert ((named.slots >= 0) == clips.valid).all()
    return [row[valid].tolist() for row, valid in zip(ids, clips.valid, strict=True)]


def perfect(frames, places, radius=1, value=1.0):
    """Clips whose masks are right in every frame.

    Args:
      frames: names of the objects found in each frame.
      places: (name, frame) -> the cells of the object.
    """
    length = len(frames)
    masks = np.zeros((length, MOST, 2 * radius + 1, CELLS))
    valid = np.zeros((length, MOST), bool)
    for t, names in enumerate(frames):
        for i, name in enumerate(names):
            valid[t, i] = True
            for tau in range(max(0, t - radius), min(length, t + radius + 1)):
                masks[t, i, tau - t + radius][list(places(name, tau))] = value
    return Clips(masks, valid, np.full((length, MOST, CLASSES), 0.5))


def two_objects(name, frame):
    """A moves by a cell a frame; B stays where it is."""
    return range(frame, frame + 3) if name == "A" else (6, 7)


def winning(clips, rule=SOFT):
    """The scores of Eq. 5 of objects with the track they got, and all others."""
    _, (_, named, (_, scores)) = run(clips, rule)
    known, others = [], []
    for t, i in np.argwhere(clips.valid):
        row = scores[t, i]
        own = named.slots[t, i]
        known += [row[own]] if row[own] > -np.inf else []
        others += [x for s, x in enumerate(row) if s != own and x > -np.inf]
    return known, others


def test_perfect_propagation_through_a_missed_detection():  # case 15
    frames = ["AB", "A", "BA", "AB"]
    hard = perfect(frames, two_objects)
    assert identities(hard) == [[1, 2], [1], [2, 1], [1, 2]]
    known, others = winning(hard)
    np.testing.assert_allclose(known, 1.0, rtol=1e-6)
    np.testing.assert_allclose(others, 0.0, atol=1e-6)
    soft = perfect(frames, two_objects, value=0.7)
    assert identities(soft) == [[1, 2], [1], [2, 1], [1, 2]]
    np.testing.assert_allclose(winning(soft)[0], 0.7 / (2 - 0.7), rtol=1e-6)


def drifting():
    """One object, whose mask drifts by a cell in each direction of time."""
    clips = perfect(["A"] * 4, two_objects)
    clips.masks[:] = 0
    for t in range(4):
        for d, first in ((-1, t), (0, t), (1, t)):
            clips.masks[t, 0, d + 1, first : first + 3] = 1
    return clips


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.3, [1, 1, 1, 1]), (0.7, [1, 2, 3, 4]), (0.4, [1, 1, 2, 2])],
)
def test_drift_lowers_the_score_with_the_distance(threshold, expected):  # case 16
    clips = drifting()
    assert sum(identities(clips, ContinuationRule(threshold, True)), []) == expected
    _, (_, _, (_, scores)) = run(clips, ContinuationRule(threshold, True))
    if threshold == 0.3:
        np.testing.assert_allclose(scores[1:, 0, 0], [0.5, 0.35, 0.35], rtol=1e-6)
    if threshold == 0.4:
        np.testing.assert_allclose(scores[3, 0, :2], [0.2, 0.5], rtol=1e-6)


@pytest.mark.parametrize("radius", [1, 2])
def test_an_object_keeps_its_id_over_2t_minus_1_missed_frames(radius):  # case 17
    def still(name, frame):
        return (2, 3)

    for missed, expected in ((2 * radius - 1, 1), (2 * radius, 2)):
        frames = ["A", *[""] * missed, "A"]
        assert identities(perfect(frames, still, radius))[-1] == [expected]


def random_clips(seed, radius, length=7):
    """Soft masks of a few moving objects with noise; frames and objects are missing."""
    rng = np.random.default_rng(seed)
    shape = (length, MOST, 2 * radius + 1, CELLS)
    base = rng.random((MOST, CELLS)) ** 2
    masks = 0.7 * base[None, :, None] + 0.5 * rng.random(shape) ** 2
    masks *= rng.random(shape[:3])[..., None] > 0.2  # empty in some frames
    scores = rng.random((length, MOST, CLASSES)) * (rng.random((length, MOST, 1)) > 0.1)
    scores *= rng.random(scores.shape) > 0.4
    order = np.stack([rng.permutation(MOST) for _ in range(length)])
    masks = np.stack([x[o] for x, o in zip(masks, order, strict=True)])
    valid = rng.random((length, MOST)) > 0.3
    valid[length // 2] = False
    return Clips(np.minimum(masks, 1.0), valid, scores)


@pytest.mark.parametrize("unique", [True, False])
def test_it_is_the_double_loop_over_everything(unique):  # case 20
    rule = ContinuationRule(0.3, unique)
    shared = new = 0
    for seed in range(12):
        clips = random_clips(seed, radius=2)
        ids, best = literal.link_video(clips, rule.threshold, unique=unique)
        links, (ours, named, (pairs, _)) = run(clips, rule, slots=24)
        for t, frame in enumerate(ids):
            found = {i: ours[t, i] for i in np.flatnonzero(named.slots[t] >= 0)}
            assert found == frame
            for i in frame:
                for r in range(min(t, 4)):
                    for j in ids[t - 1 - r]:
                        expected = literal.pair_score(clips, t, i, t - 1 - r, j)
                        np.testing.assert_allclose(
                            pairs[t, i, r, j], expected, atol=1e-5
                        )
            first = list(frame.values())
            # The first object of each track, as the order is that of the scores.
            shown = [list(frame)[first.index(track)] for track in dict.fromkeys(first)]
            assert np.flatnonzero(named.shown[t]).tolist() == shown
            shared += len(first) > len(set(first))
        new += links.next_id
    assert (shared > 0) == (not unique)  # the cases tell the two rules apart
    assert 24 < new < 150  # .. and neither all nor no objects continue a track


def test_the_order_of_objects_does_not_change_who_is_who():  # case 18
    clips = random_clips(3, radius=2)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(MOST) for _ in clips.valid]
    moved = Clips(
        *(np.stack([x[o] for x, o in zip(part, orders, strict=True)]) for part in clips)
    )
    first, second = (run(x, slots=24)[1][0] for x in (clips, moved))
    renamed = {}
    for row, other, order in zip(first, second, orders, strict=True):
        for old, new in zip(row[order].tolist(), other.tolist(), strict=True):
            assert renamed.setdefault(old, new) == new
    assert len(set(renamed.values())) == len(renamed) > 4


def test_objects_that_cross_keep_their_ids():  # case 18
    def crossing(name, frame):
        return (frame, frame + 1) if name == "A" else (6 - frame, 7 - frame)

    frames = ["AB", "AB", "AB", "BA", "BA", "BA", "AB"]
    expected = [[2, 1] if names == "BA" else [1, 2] for names in frames]
    assert identities(perfect(frames, crossing, radius=2)) == expected


@pytest.mark.parametrize("frames", [["AB"], ["", ""], ["", "A", "A"], ["A", "AB"]])
def test_videos_shorter_than_a_clip_and_frames_without_objects(frames):  # case 18
    ids = identities(perfect(frames, two_objects, radius=2))
    assert ids == [list(range(1, len(names) + 1)) for names in frames]


def test_without_shared_frames_every_object_is_new():  # case 20
    assert identities(perfect(["AB", "AB"], two_objects, radius=0)) == [[1, 2], [3, 4]]


def test_frames_where_both_masks_are_empty_are_not_compared():
    clips = perfect(["A", "A"], two_objects)
    clips.masks[0, 0, 1] = clips.masks[1, 0, 0] = 0  # frame 0, of the two it has
    _, (_, _, (pairs, _)) = run(clips)
    np.testing.assert_allclose(pairs[1, 0, 0, 0], 1.0, rtol=1e-6)
    clips.masks[:] = 0
    _, (_, _, (pairs, _)) = run(clips)
    assert pairs[1, 0, 0, 0] == 0


def test_objects_beyond_the_slots_are_lost_and_slots_are_used_again():
    def still(name, frame):
        return ("ABC".index(name),)

    clips = perfect(["ABC", "", "", "BC", "CB"], still)
    links, (ids, named, _) = run(clips, slots=2)
    # The third object finds no slot; after 2 T frames its slots are free for others.
    assert ids[:, :3].tolist() == [
        [1, 2, 0], [0, 0, 0], [0, 0, 0], [3, 4, 0], [4, 3, 0]
    ]  # fmt: skip
    assert links.lost == 1
    assert named.slots[4].tolist() == [1, 0, -1]
    assert links.objects.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("label_sum_over_n", [1.6 / 3, 0.2, 0]), ("label_mean", [0.8, 0.6, 0])],
)
def test_scores_of_a_track(mode, expected):  # case 19
    clips = perfect(["A"] * 3, two_objects)
    clips.scores[:, 0] = [[0.9, 0, 0], [0.7, 0, 0], [0, 0.6, 0]]
    links, _ = run(clips)
    found = _class_probs(links, mode)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert not found[1:].any()


@pytest.mark.parametrize("mode", ["label_sum_over_n", "label_mean", "vector_mean"])
def test_scores_are_those_of_the_loop_over_detections(mode):
    clips = random_clips(1, radius=2)
    if mode == "vector_mean":  # no score is 0
        clips = clips._replace(scores=clips.scores * 0.9 + 0.05)
    ids, _ = literal.link_video(clips, SOFT.threshold, unique=True)
    links, _ = run(clips, slots=24)
    live = links.track_ids > 0
    found = dict(
        zip(
            links.track_ids[live].tolist(),
            _class_probs(links, mode)[live],
            strict=True,
        )
    )
    expected = literal.class_scores(clips, ids, mode)
    assert len(found) > 3
    for track, scores in found.items():
        np.testing.assert_allclose(scores, expected[track], rtol=1e-5)
