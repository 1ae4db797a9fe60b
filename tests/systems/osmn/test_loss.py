import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compiled import compiled
from vis_jax.structures import Batch
from vis_jax.systems.osmn.loss import (
    OsmnTrainRule,
    balanced_bce,
    choose,
    examples,
    osmn_loss,
)
from vis_jax.systems.osmn.network import OSMN

TOY = OSMN(widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1), hidden=8, side_width=4)
RULE = OsmnTrainRule(objects=3, guide_side=32, train_norm=True)
SIZE = 32


def _clips(frames=2):
    """Two clips of two coloured squares that move one pixel to the right."""
    rng = np.random.default_rng(0)
    images = np.full((2, frames, SIZE, SIZE, 3), 90, np.uint8)
    masks = np.zeros((2, 3, frames, SIZE, SIZE), bool)
    boxes = np.zeros((2, 3, frames, 4), np.float32)
    for b in range(2):
        for m, y in enumerate((2, 18)):
            colour, x = rng.integers(0, 255, 3), rng.integers(2, 16)
            for t in range(frames):
                x1, x2, y2 = x + t, x + t + 10, y + 10
                masks[b, m, t, y:y2, x1:x2] = True
                images[b, t, y:y2, x1:x2] = colour
                boxes[b, m, t] = x1, y, x2, y2
    valid = np.array([[True, True, False]] * 2)
    return Batch(
        images=images,
        frame_valid=np.ones((2, frames), bool),
        sizes=np.full((2, 2), SIZE, np.int32),
        masks=masks,
        boxes=boxes,
        present=masks.any(axis=(3, 4)),
        labels=np.zeros((2, 3), np.int32),
        track_ids=np.array([[1, 2, 0]] * 2, np.int32),
        instance_valid=valid,
    )


def _first(batch):
    return jax.tree.map(lambda x: x[0], batch)


@functools.cache
def _variables():
    return compiled(functools.partial(TOY.init, train=False, train_norm=False))(
        jax.random.key(0),
        np.zeros((2, 32, 32, 3)),
        np.zeros((1, SIZE, SIZE, 3)),
        np.zeros((2, SIZE, SIZE)),
        valid=np.ones(2, bool),
    )


def test_chooses_objects_of_two_frames_in_turn_and_a_frame_that_shows_them():
    clip = _first(_clips(frames=4))
    present, masks = clip.present.copy(), clip.masks.copy()
    # Object 0 is absent from frame 1: it can be a target in frame 3 alone. In frame 2
    # one row of it is left, a tenth of its box: too little to show how it looks.
    present[0, 1] = masks[0, 1] = False
    masks[0, 2] &= np.arange(SIZE)[:, None] < 3
    clip = clip._replace(present=present, masks=masks)
    keys = jax.random.split(jax.random.key(0), 200)
    draw = functools.partial(choose, objects=2)
    many = compiled(jax.vmap(draw, (None, 0)))
    choice = many(clip, keys)
    assert set(np.asarray(choice.target)) == {1, 2, 3}
    np.testing.assert_array_equal(choice.before, choice.target - 1)
    first = (choice.objects == 0) & choice.valid
    assert set(np.asarray(choice.target)[np.any(first, axis=1)]) == {3}
    assert set(np.asarray(choice.guides)[first]) == {0, 3}
    second = (choice.objects == 1) & choice.valid
    assert second.any(axis=1).all()
    assert set(np.asarray(choice.guides)[second]) == {0, 1, 2, 3}
    assert not (choice.objects[choice.valid] == 2).any()
    assert not choice.left_out.any()
    one = compiled(jax.vmap(functools.partial(choose, objects=1), (None, 0)))(
        clip, keys
    )
    both = np.asarray(one.target) == 3  # in other frames object 1 is alone
    np.testing.assert_array_equal(one.left_out, both)
    assert both.any()


def test_chooses_no_frame_of_padding():
    clip = _first(_clips(frames=4))
    clip = clip._replace(frame_valid=np.arange(4) < 2)  # with objects behind it
    many = compiled(jax.vmap(functools.partial(choose, objects=2), (None, 0)))
    choice = many(clip, jax.random.split(jax.random.key(0), 50))
    assert set(np.asarray(choice.target)) == {1}
    assert choice.valid.all()
    assert set(np.asarray(choice.guides).ravel()) == {0, 1}


OPTIMIZER = optax.adam(1e-2)
_moments = compiled(OPTIMIZER.init)


class Training(NamedTuple):
    params: dict
    stats: dict
    moments: optax.OptState


def _start():
    params, stats = (_variables()[name] for name in ("params", "batch_stats"))
    return Training(params, stats, _moments(params))


@compiled
def _update(state, batch, key):
    """One compilation for all tests: the state after an update, and the loss."""

    def value(params):
        variables = {"params": params, "batch_stats": state.stats}
        return osmn_loss(TOY, variables, batch, key, rule=RULE)

    (loss, aux), gradients = jax.value_and_grad(value, has_aux=True)(state.params)
    updates, moments = OPTIMIZER.update(gradients, state.moments)
    params = optax.apply_updates(state.params, updates)
    return Training(params, aux.batch_stats, moments), loss


@pytest.fixture
def update():
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        yield _update


def test_is_traced_without_hidden_promotion():
    loss = functools.partial(osmn_loss, TOY, rule=RULE)
    value, aux = jax.eval_shape(loss, _variables(), _clips(), jax.random.key(0))
    assert value.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, aux.batch_stats) == jax.tree.map(
        jnp.shape, _variables()["batch_stats"]
    )


def test_nothing_to_learn_from_costs_nothing_and_is_not_remembered(update):
    nothing = _clips()._replace(instance_valid=np.zeros((2, 3), bool))
    state, loss = update(_start(), nothing, jax.random.key(0))
    assert loss == 0
    before = _variables()
    jax.tree.map(np.testing.assert_array_equal, state.params, before["params"])
    jax.tree.map(np.testing.assert_array_equal, state.stats, before["batch_stats"])


def test_guides_show_the_object_and_where_it_was():
    clip = _first(_clips())
    make = functools.partial(examples, rule=RULE, style="torch")
    found = compiled(make)(clip, jax.random.key(0))
    np.testing.assert_array_equal(found.valid, [True, True, False])
    for i in range(2):
        guide, heat, mask = (
            np.asarray(x[i]) for x in (found.guides, found.heat, found.masks)
        )
        shown = guide[np.any(guide != 0, axis=-1)]
        assert len(shown) > 32 * 32 / 2
        colour = np.median(np.asarray(found.image)[mask], axis=0)
        np.testing.assert_allclose(np.median(shown, axis=0), colour, atol=1e-5)
        assert heat[mask].mean() > 3 * heat[~mask].mean()
    # An image by itself is a clip, too.
    alone = compiled(functools.partial(choose, objects=2))(
        _first(_clips(frames=1)), jax.random.key(0)
    )
    assert alone.valid.all()
    assert int(alone.target) == int(alone.before) == 0


def test_padding_changes_nothing(update):
    batch = _clips()
    rng = np.random.default_rng(0)
    masks, boxes = batch.masks.copy(), batch.boxes.copy()
    masks[:, 2] = rng.random(masks[:, 2].shape) < 0.5
    boxes[:, 2] = rng.normal(size=boxes[:, 2].shape) * 50
    other = batch._replace(masks=masks, boxes=boxes)
    ours, theirs = (update(_start(), x, jax.random.key(1)) for x in (batch, other))
    assert ours[1] > 1
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_learns_two_clips(update):
    batch, state, losses = _clips(), _start(), []
    for key in jax.random.split(jax.random.key(0), 60):
        state, loss = update(state, batch, key)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5]), losses
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state[:2], _start()[:2])
    assert all(jax.tree.leaves(moved))  # every parameter has a gradient


value_and_grad = compiled(jax.value_and_grad(balanced_bce))


def test_is_the_formula_on_the_pixels_that_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32) * 3
    targets, counts = rng.random((2, 2, 3, 4)) < 0.4
    probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
    positive, negative = targets & counts, ~targets & counts
    n_positive, n_negative = positive.sum(), negative.sum()
    total = n_positive + n_negative
    expected = -n_negative / total * np.log(probs[positive]).sum()
    expected -= n_positive / total * np.log(1 - probs[negative]).sum()
    value, gradient = value_and_grad(logits, targets, counts)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not gradient[~counts].any()
    # Undecided everywhere, both kinds pull equally: the gradient sums to zero.
    _, gradient = value_and_grad(np.zeros_like(logits), targets, counts)
    np.testing.assert_allclose(gradient.sum(), 0, atol=1e-5)


def test_large_logits_and_nothing_to_count_stay_finite():
    logits = np.array([1e4, -1e4, 0], np.float32)
    targets = np.array([False, True, True])
    for counts in (np.ones(3, bool), np.zeros(3, bool)):
        value, gradient = value_and_grad(logits, targets, counts)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert value == 0
