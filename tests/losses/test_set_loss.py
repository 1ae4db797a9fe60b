import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.losses.set_loss import (
    CrossEntropy,
    Focal,
    SetTruth,
    mask_terms_at,
    match_cost_at,
    set_loss,
    truth_of,
)
from vis_jax.ops.sampling import draw_sizes
from vis_jax.structures import Batch

M, T, Q, K, C, P = 3, 2, 5, 4, 6, 12
FOCAL, CE = Focal(points=P), CrossEntropy(points=P)
_terms = jax.jit(mask_terms_at)
_cost = jax.jit(match_cost_at, static_argnums=5)
_loss = jax.jit(set_loss, static_argnums=5)


def _clip(seed=0, *, frames=T, sources=T):
    """Random embeddings, features, truth and draws of one clip."""
    rng = np.random.default_rng(seed)
    embeds = rng.normal(size=(frames, Q, C)).astype(np.float32)
    features = rng.normal(size=(frames, 4, 5, C)).astype(np.float32)
    truth = SetTruth(
        labels=np.array([1, 3, 0], np.int32),
        masks=rng.random((M, frames, 8, 10)) < 0.4,
        valid=np.ones(M, bool),
        frame_valid=np.ones(frames, bool),
    )
    draws = tuple(
        rng.random((M, sources, frames, n, 2), np.float32) for n in draw_sizes(P)
    )
    return embeds, features, truth, draws


MATCHED = np.array([4, 0, 2], np.int32)


def _read(maps, points):
    """Bilinear values, zero outside, point by point."""
    height, width = maps.shape
    values = np.zeros(len(points))
    for index, (x, y) in enumerate(points):
        rows = np.maximum(1 - np.abs(y * height - 0.5 - np.arange(height)), 0)
        columns = np.maximum(1 - np.abs(x * width - 0.5 - np.arange(width)), 0)
        values[index] = rows @ maps @ columns
    return values


def _bce(x, g):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * g


def _dice(x, g):
    p = 1 / (1 + np.exp(-x))
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)


def _literal_terms(embeds, features, truth, draws, cross):
    """Eq. 5 to 7, map by map, in float64."""
    total = np.zeros(2)
    for m, s, t in np.ndindex(M, draws[0].shape[1], T):
        source = s if draws[0].shape[1] > 1 else t
        logits = (features[t] @ embeds[source, MATCHED[m]]).astype(np.float64)
        uncertainty = np.abs(_read(logits, draws[0][m, s, t]))
        kept = draws[0][m, s, t][np.argsort(uncertainty)[: P * 3 // 4]]
        points = np.concatenate([kept, draws[1][m, s, t]])
        x = _read(logits, points)
        g = _read(truth.masks[m, t].astype(float), points)
        weight = 1 if source == t else cross
        total += weight * np.array([_bce(x, g).mean(), _dice(x, g)])
    return total


@pytest.mark.parametrize("sources", [1, T])
def test_mask_terms_are_the_equations(sources):
    embeds, features, truth, draws = _clip(sources=sources)
    found = _terms(embeds, MATCHED, features, truth, draws, 0.3)
    expected = _literal_terms(embeds, features, truth, draws, 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_without_cross_frame_weight_only_the_same_frame_counts():
    embeds, features, truth, draws = _clip()
    same = np.arange(T)
    diagonal = tuple(d[:, same, same][:, None] for d in draws)
    alone = _terms(embeds, MATCHED, features, truth, diagonal, 0.0)
    np.testing.assert_allclose(
        _terms(embeds, MATCHED, features, truth, draws, 0.0), alone, rtol=1e-5
    )


def test_one_frame_has_no_cross_frame_terms():
    embeds, features, truth, draws = _clip(frames=1, sources=1)
    first = np.asarray(_terms(embeds, MATCHED, features, truth, draws, 0.3))
    second = np.asarray(_terms(embeds, MATCHED, features, truth, draws, 9.0))
    np.testing.assert_array_equal(first, second)


def test_duplicated_frames_double_the_same_frame_loss():
    embeds, features, truth, draws = _clip(frames=1, sources=1)
    once = _terms(embeds, MATCHED, features, truth, draws, 0.0)
    twice = _terms(
        np.tile(embeds, (2, 1, 1)),
        MATCHED,
        np.tile(features, (2, 1, 1, 1)),
        truth._replace(
            masks=np.tile(truth.masks, (1, 2, 1, 1)), frame_valid=np.ones(2, bool)
        ),
        tuple(np.tile(d, (1, 1, 2, 1, 1)) for d in draws),
        0.0,
    )
    np.testing.assert_allclose(twice, 2 * np.asarray(once), rtol=1e-5)


def test_padded_slots_and_frames_add_nothing():
    embeds, features, truth, draws = _clip()
    truth = truth._replace(
        valid=np.array([True, False, True]), frame_valid=np.array([True, False])
    )
    before = _terms(embeds, MATCHED, features, truth, draws, 0.3)
    masks = truth.masks.copy()
    masks[1], masks[:, 1] = True, True
    features[1] = 50.0
    after = _terms(embeds, MATCHED, features, truth._replace(masks=masks), draws, 0.3)
    np.testing.assert_array_equal(before, after)
    one = tuple(d[:, :1, :1] for d in draws)
    short = truth._replace(masks=truth.masks[:, :1], frame_valid=truth.frame_valid[:1])
    alone = _terms(embeds[:1], MATCHED, features[:1], short, one, 0.3)
    np.testing.assert_allclose(after, alone, rtol=1e-5)


def test_only_matched_queries_and_valid_instances_get_gradient():
    embeds, features, truth, draws = _clip()
    truth = truth._replace(valid=np.array([True, False, True]))

    def total(embeds):
        return _terms(embeds, MATCHED, features, truth, draws, 0.3).sum()

    gradient = np.asarray(jax.grad(total)(embeds))
    reached = np.abs(gradient).max((0, 2)) > 0
    np.testing.assert_array_equal(reached, [False, False, True, False, True])


@pytest.mark.parametrize("weights", [FOCAL, CE])
def test_match_cost_is_the_equation(weights):
    embeds, features, truth, _ = _clip()
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(Q, K + (weights.kind == "ce"))).astype(np.float32)
    points = rng.random((P, 2), np.float32)
    found = np.asarray(_cost(logits, embeds, features, truth, points, weights))
    probs = 1 / (1 + np.exp(-logits))
    if weights.kind == "ce":
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for q, m in np.ndindex(Q, M):
        x = np.concatenate([_read(features[t] @ embeds[t, q], points) for t in (0, 1)])
        g = np.concatenate([_read(truth.masks[m, t] * 1.0, points) for t in (0, 1)])
        expected = -2 * probs[q, truth.labels[m]]
        expected += 5 * _bce(x, g).mean() + 5 * _dice(x, g)
        np.testing.assert_allclose(found[q, m], expected, rtol=1e-4)


def test_match_cost_ignores_padded_frames():
    embeds, features, truth, _ = _clip()
    logits = np.zeros((Q, K), np.float32)
    points = np.random.default_rng(1).random((P, 2), np.float32)
    padded = truth._replace(frame_valid=np.array([True, False]))
    short = truth._replace(masks=truth.masks[:, :1], frame_valid=np.ones(1, bool))
    found = _cost(logits, embeds, features, padded, points, FOCAL)
    alone = _cost(logits, embeds[:1], features[:1], short, points, FOCAL)
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def _sets(seed=0):
    """Two clips, two prediction sets."""
    clips = [_clip(seed + i) for i in (0, 1)]
    features, truth = (
        jax.tree.map(lambda *x: np.stack(x), *[clip[i] for clip in clips])
        for i in (1, 2)
    )
    embeds = np.stack([[clip[0], 2 * clip[0]] for clip in clips], axis=1)
    logits = np.random.default_rng(seed).normal(size=(2, 2, Q, K))
    return logits.astype(np.float32), embeds, features, truth


def test_set_0_has_no_cross_frame_terms():
    """All logits of set 1 are zero: log 2 for each map, whatever the points."""
    logits, embeds, features, truth = _sets()
    embeds[1] = 0.0
    light, heavy = (
        _loss(logits, embeds, features, truth, jax.random.key(0), weights)
        for weights in (FOCAL, dataclasses.replace(FOCAL, cross_frame=9.0))
    )
    # A mean over instances, of which each has T (T - 1) maps of other frames.
    expected = 5.0 * (9.0 - 0.3) * T * (T - 1) * np.log(2)
    np.testing.assert_allclose(heavy["mask"] - light["mask"], expected, rtol=1e-5)


def test_label_loss_names_matched_queries_and_calls_the_rest_no_object():
    """Perfect masks leave no doubt about the matching."""
    logits, embeds, features, truth = _sets()
    truth = truth._replace(valid=np.array([[True] * 3, [True, False, False]]))
    # One channel per instance, at full size: query 4 - m draws instance m.
    features = np.moveaxis(truth.masks, 1, -1) * 20.0 - 10.0
    embeds = np.zeros((2, 2, T, Q, M), np.float32)
    for m in range(M):
        embeds[:, :, :, 4 - m, m] = 1.0
    embeds[:, :, :, :2] = -1.0
    targets = np.full((2, Q), K)
    for b, m in zip(*np.nonzero(truth.valid), strict=True):
        targets[b, 4 - m] = truth.labels[b, m]
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    true = np.eye(K + 1)[targets][None, ..., :K]
    expected = -0.25 * true * (1 - p) ** 2 * np.log(p)
    expected -= 0.75 * (1 - true) * p**2 * np.log(1 - p)
    found = _loss(
        logits, embeds, features.astype(np.float32), truth, jax.random.key(0), FOCAL
    )
    np.testing.assert_allclose(found["label"], 2 * expected.sum() / 4, rtol=1e-4)


@pytest.mark.parametrize("weights", [FOCAL, CE])
def test_terms_are_finite_float32_and_vanish_without_instances(weights):
    logits, embeds, features, truth = _sets()
    if weights.kind == "ce":
        logits = np.concatenate([logits, logits[..., :1]], axis=-1)
        features = jnp.asarray(features, jnp.bfloat16)
    found = _loss(logits, embeds, features, truth, jax.random.key(0), weights)
    assert {x.dtype for x in found.values()} == {jnp.dtype("float32")}
    assert all(np.isfinite(x) and x > 0 for x in found.values())
    none = truth._replace(valid=np.zeros((2, M), bool))
    found = _loss(logits, embeds, features, none, jax.random.key(0), weights)
    assert np.isfinite(found["label"])
    assert found["mask"] == found["dice"] == 0
    if weights.kind == "ce":
        # All queries are no object with the same weight: a plain mean, for each set.
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = -2 * log_p[..., -1].mean((1, 2)).sum()
        np.testing.assert_allclose(found["label"], expected, rtol=1e-5)


def test_the_order_of_instances_does_not_matter():
    """With the same draws for all instances, and so with none of their own."""
    embeds, features, truth, draws = _clip()
    logits = np.random.default_rng(2).normal(size=(Q, K)).astype(np.float32)
    points = draws[1][0, 0, 0]
    order = np.array([2, 0, 1])
    moved = truth._replace(labels=truth.labels[order], masks=truth.masks[order])
    cost = functools.partial(_cost, logits, embeds, features)
    before = np.asarray(cost(truth, points, FOCAL))
    np.testing.assert_allclose(cost(moved, points, FOCAL), before[:, order], rtol=1e-6)
    shared = tuple(np.broadcast_to(d[:1], d.shape) for d in draws)
    terms = _terms(embeds, MATCHED, features, truth, shared, 0.3)
    np.testing.assert_allclose(
        _terms(embeds, MATCHED[order], features, moved, shared, 0.3), terms, rtol=1e-5
    )


def test_an_instance_counts_if_a_frame_shows_it():
    present = np.array([[[True, False], [False, False], [False, True]]])
    batch = Batch(
        images=None,
        frame_valid=np.ones((1, 2), bool),
        sizes=None,
        masks=np.zeros((1, 3, 2, 4, 4), bool),
        boxes=None,
        present=present,
        labels=np.zeros((1, 3), np.int32),
        track_ids=None,
        instance_valid=np.array([[True, True, False]]),
    )
    np.testing.assert_array_equal(truth_of(batch).valid, [[True, False, False]])
