"""The track head of CondInst against sums written out."""

import functools

import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.condinst_track import TrackMap, place_loss, place_of
from vis_jax.detectors.fcos import STRIDES, places_of
from vis_jax.detectors.frame_pair import Roles
from vis_jax.losses.fcos import DenseTargets

RANGES = (64.0, 128.0, 256.0, 512.0)


def test_a_box_has_the_location_at_its_middle_on_the_level_of_its_size():
    cells = tuple((256 // stride, 512 // stride) for stride in STRIDES)
    boxes = np.array(
        [
            [0, 0, 20, 10],
            [100, 40, 228, 80],  # 128 long: the farthest side is at 64
            [100, 40, 229, 80],
            [0, 0, 512, 256],
            [500, 250, 530, 270],  # its middle is beyond the canvas
        ],
        np.float32,
    )
    places = places_of(cells)
    found = compiled(functools.partial(place_of, cells=cells, ranges=RANGES))(boxes)
    np.testing.assert_array_equal(np.asarray(places.strides)[found], [8, 8, 16, 32, 8])
    np.testing.assert_array_equal(
        np.asarray(places.locations)[found],
        [[12, 4], [164, 60], [168, 56], [272, 144], [508, 252]],
    )


def test_embeddings_are_those_of_the_cells_of_all_levels():
    rng = np.random.default_rng(0)
    levels = tuple(
        rng.normal(size=(2, side, side + 1, 32)).astype(np.float32)
        for side in (5, 4, 3, 2, 1)
    )
    model = TrackMap(dim=32, width=6)
    variables = jax.jit(model.init)(jax.random.key(0), levels)
    apply = jax.jit(model.apply)
    embeds = apply(variables, levels)
    assert embeds.shape == (2, 30 + 20 + 12 + 6 + 2, 6)
    # Outputs for a level depend on it alone.
    changed = apply(variables, (*levels[:2], 0 * levels[2], *levels[3:]))
    differs = np.abs(embeds - changed).max(axis=(0, 2)) > 0
    start, end = 30 + 20, 30 + 20 + 12
    assert differs[start:end].all()
    assert not differs[:start].any() and not differs[end:].any()


def _targets(truth, positive) -> DenseTargets:
    truth = np.array(truth, np.int32)
    return DenseTargets(
        truth,
        np.zeros_like(truth),
        np.zeros((*truth.shape, 4), np.float32),
        np.array(positive, bool),
    )


def test_locations_are_compared_with_the_mean_of_those_of_the_other_frame():
    rng = np.random.default_rng(1)
    embeds = rng.normal(size=(2, 6, 3)).astype(np.float32)
    # Frame 1 is the key. Object 0 has two locations in frame 0; object 1 is there but
    # without one; object 2 is not there.
    targets = _targets(
        [[0, 0, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2]],
        [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
    )
    present = np.array([[1, 1, 0], [1, 1, 1]], bool)
    loss = compiled(functools.partial(place_loss, most=8))(
        jax.random.key(0),
        embeds,
        targets,
        present,
        roles=Roles(np.array([1], np.int32), np.array([0], np.int32)),
    )
    mean = embeds[0, :2].mean(axis=0)
    # Column 0 is "none of them", the others are the objects of the other frame.
    of_first = np.array([0.0, embeds[1, 0] @ mean])
    of_third = np.array([0.0, embeds[1, 2] @ mean])
    expected = -np.mean(
        [
            of_first[1] - np.logaddexp(*of_first),
            of_third[0] - np.logaddexp(*of_third),
        ]
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_of_too_many_locations_some_are_compared():
    embeds = np.random.default_rng(2).normal(size=(2, 6, 3)).astype(np.float32)
    targets = _targets(np.zeros((2, 6)), np.ones((2, 6)))
    roles = Roles(np.array([0], np.int32), np.array([1], np.int32))
    present = np.ones((2, 1), bool)
    draw = compiled(functools.partial(place_loss, most=1))
    losses = {
        round(
            float(draw(jax.random.key(seed), embeds, targets, present, roles=roles)), 5
        )
        for seed in range(12)
    }
    logits = embeds[0] @ embeds[1].mean(axis=0)
    each = {round(float(np.logaddexp(0, x) - x), 5) for x in logits}
    assert len(losses) > 1 and losses <= each
