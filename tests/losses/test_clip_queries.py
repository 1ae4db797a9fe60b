"""Losses of a clip by their definitions in NumPy."""

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tests.compiled import compiled
from vis_jax.losses import clip_queries
from vis_jax.losses.clip_queries import ClipTruth, Settings

# One object in all frames, one from frame 1 on, one that only frame 1 shows, padding.
PRESENT = np.array([[1, 1, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
LABELS = np.array([1, 0, 1, 7], np.int32)
QUERIES, CLASSES, FRAMES, SIDE = 5, 2, 3, 4


def drawn(seed=0):
    """Class logits, mask logits, truth and points of one clip."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(FRAMES, QUERIES, CLASSES + 1)).astype(np.float32)
    masks = 3 * rng.normal(size=(FRAMES, QUERIES, SIDE, SIDE)).astype(np.float32)
    wanted = rng.random((4, FRAMES, SIDE, SIDE)) < 0.4
    wanted &= PRESENT[..., None, None]
    truth = ClipTruth(LABELS, wanted, PRESENT, np.ones(FRAMES, bool))
    # Points at the centres of pixels, where bilinear values are those of the pixels.
    points = (rng.integers(0, SIDE, (FRAMES, 9, 2)) + 0.5) / SIDE
    return logits, masks, truth, points.astype(np.float32)


def costs(logits, masks, truth, points, t):
    """[Q, M] of one frame."""
    x, y = (points[t] * SIDE - 0.5).round().astype(int).T
    values, wanted = masks[t][:, y, x], truth.masks[:, t][:, y, x].astype(float)
    probs = softmax(logits[t], axis=-1)
    found = np.zeros((QUERIES, len(truth.labels)))
    for q, m in np.ndindex(*found.shape):
        bce = np.logaddexp(0, values[q]) - values[q] * wanted[m]
        sure = 1 / (1 + np.exp(-values[q]))
        dice = 1 - (2 * sure @ wanted[m] + 1) / (sure.sum() + wanted[m].sum() + 1)
        label = min(truth.labels[m], CLASSES - 1)
        found[q, m] = 5 * bce.mean() + 5 * dice - 2 * probs[q, label]
    return found


def first_sight(logits, masks, truth, points):
    """By trying everything, frame by frame."""
    matched = np.full(len(truth.labels), -1)
    for t in range(FRAMES):
        new = np.flatnonzero(truth.present[:, t] & (matched < 0))
        free = [q for q in range(QUERIES) if q not in matched]
        cost = costs(logits, masks, truth, points, t)
        best = min(
            itertools.permutations(free, len(new)),
            key=lambda rows: sum(cost[q, m] for q, m in zip(rows, new, strict=True)),
        )
        matched[new] = best
    return matched


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_matched_in_the_first_frame_that_shows_them(seed):
    logits, masks, truth, points = drawn(seed)
    match = compiled(clip_queries.match_at_first_sight, static_argnums=4)
    found = match(logits, masks, truth, points, Settings())
    np.testing.assert_array_equal(found, first_sight(logits, masks, truth, points))
    # An object that is known from before keeps its query.
    known = np.array([found[1], -1, -1, -1], np.int32)
    later = match(logits, masks, truth, points, Settings(), known)
    assert later[0] == found[1]
    assert len(set(later[:3])) == 3
    assert later[3] == -1


def test_more_instances_than_queries_are_an_error():
    logits, masks, truth, points = drawn()
    with pytest.raises(ValueError, match="at least as many queries as instance slots"):
        compiled(clip_queries.match_at_first_sight, static_argnums=4)(
            logits[:, :3], masks[:, :3], truth, points, Settings()
        )


@pytest.mark.parametrize("absent", ["object", "no_object"])
def test_terms_are_those_of_the_definition(absent):
    logits, masks, truth, _ = drawn()
    matched = np.array([3, 0, 4, -1], np.int32)
    weights = Settings(points=4, absent_class=absent)
    lead = ClipTruth(*(x[None] for x in truth))
    # All of the 12 candidates but the chosen ones lie at pixel (0, 0).
    centre = np.full((1, 4, FRAMES, 12, 2), 0.5 / SIDE, np.float32)
    rest = np.full((1, 4, FRAMES, 1, 2), 2.5 / SIDE, np.float32)
    draws = clip_queries.Draws(np.zeros((1, FRAMES, 4, 2), np.float32), centre, rest)
    terms = compiled(clip_queries.clip_terms, static_argnums=5)(
        logits[None], masks[None], lead, draws, matched[None], weights
    )
    targets = np.full((FRAMES, QUERIES), CLASSES)
    bce = dice = 0.0
    for m, t in np.ndindex(3, FRAMES):
        if absent == "object" or PRESENT[m, t]:
            targets[t, matched[m]] = LABELS[m]
        at = ([0, 0, 0, 2], [0, 0, 0, 2])
        value, wanted = masks[t, matched[m]][at], truth.masks[m, t][at].astype(float)
        bce += (np.logaddexp(0, value) - value * wanted).mean()
        sure = 1 / (1 + np.exp(-value))
        dice += 1 - (2 * sure @ wanted + 1) / (sure.sum() + wanted.sum() + 1)
    weight = np.where(targets == CLASSES, 0.1, 1.0)
    chosen = np.take_along_axis(log_softmax(logits, -1), targets[..., None], -1)[..., 0]
    expected = {
        "label": -2 * (weight * chosen).sum() / weight.sum(),
        "mask": 5 * bce / 9,
        "dice": 5 * dice / 9,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)


def test_frames_apart_are_clips_of_one_frame():
    _, _, truth, _ = drawn()
    lead = ClipTruth(*(np.stack([x, x]) for x in truth))
    apart = compiled(clip_queries.frames_apart)(lead)
    assert apart.masks.shape == (2 * FRAMES, 4, 1, SIDE, SIDE)
    np.testing.assert_array_equal(apart.masks[FRAMES + 1, :, 0], truth.masks[:, 1])
    np.testing.assert_array_equal(apart.present[1, :, 0], PRESENT[:, 1])
    np.testing.assert_array_equal(apart.labels[4], LABELS)
