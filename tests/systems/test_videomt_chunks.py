"""The loss of clips in chunks of frames."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import changed
from tests.systems.small_videomt import frames_of, made
from vis_jax.losses.clip_queries import truth_of
from vis_jax.params import flatten
from vis_jax.systems.videomt import build, build_model
from vis_jax.systems.videomt_loss import (
    FrameSpan,
    chunk_predictions,
    chunk_shares,
    loss_terms,
)


@functools.cache
def chunked():
    """Settings in chunks of one frame; the loss, and that of a chunk; gradients."""
    settings = changed(made()[0], {"loss.chunk": 1, "loss.aux_last": False})
    system = build(settings)
    whole = compiled(jax.value_and_grad(lambda *x: system.loss(*x)[0]))
    one = compiled(jax.value_and_grad(_one_chunk(settings), has_aux=True))
    return settings, whole, one


def _chunk_by_chunk(variables, batch, key, count):
    """Mean loss and gradient of the first chunks, each apart; the queries after them.

    Each begins with the queries and matches that the one before left.
    """
    one, total, summed = chunked()[2], 0.0, {}
    entered = np.zeros((1, *variables["params"]["query"].shape), np.float32)
    matched = np.full((1, *batch.labels.shape), -1, np.int32)
    for t in range(count):
        frame = frames_of(batch, slice(t, t + 1))
        part, chunk = one(variables, frame, key, np.int32(t), entered, matched)
        total, (entered, matched) = total + part[0] / count, part[1]
        for path, x in flatten(chunk).items():
            summed[path] = summed.get(path, 0.0) + x / count
    return total, summed, entered


def test_chunks_share_the_loss_and_pass_no_gradient():
    """With chunks of one frame, the state passed on to the next has no gradient.

    Loss and gradient are those of one backward pass for each chunk.
    """
    _, variables, batch, run = made()
    whole, batch = batch, frames_of(batch, slice(3))
    settings, gradient, _ = chunked()
    key = jax.random.key(3)
    loss, found = gradient(variables, batch, key)
    found = flatten(found)
    for path, x in found.items():
        assert np.any(x != 0) == ("/updater/" not in path), path
    total, summed, entered = _chunk_by_chunk(variables, batch, key, 3)
    assert loss == pytest.approx(total, rel=1e-4)
    _check_gradients(found, summed)
    left = run(variables, whole.images, np.arange(4)[None] < 3)[2]
    np.testing.assert_allclose(entered, left, atol=1e-4)


def test_a_chunk_that_no_clip_reaches_does_not_count():
    """The last of three chunks is padding: the loss is the mean over two."""
    _, variables, batch, _ = made()
    batch = frames_of(batch, slice(3))._replace(frame_valid=np.arange(3)[None] < 2)
    key = jax.random.key(3)
    loss, found = chunked()[1](variables, batch, key)
    total, summed, _ = _chunk_by_chunk(variables, batch, key, 2)
    assert loss == pytest.approx(total, rel=1e-4)
    _check_gradients(flatten(found), summed)


def test_a_chunk_counts_if_any_clip_reaches_it():
    valid = np.arange(8)[None] < np.array([[1], [5]])
    np.testing.assert_allclose(chunk_shares(jnp.asarray(valid), 2), [1 / 3] * 3 + [0])
    np.testing.assert_array_equal(chunk_shares(jnp.zeros((2, 4), bool), 2), [0, 0])


def _check_gradients(found, expected):
    for path, x in expected.items():
        close = 1e-4 * np.abs(x).max() + 1e-6
        np.testing.assert_allclose(found[path], x, rtol=1e-3, atol=close)


def _one_chunk(settings):
    """Loss of a chunk of frames; queries and matches after it."""
    model = build_model(settings)

    def loss(variables, batch, key, number, entered, matched):
        batch = jax.tree.map(jnp.asarray, batch)
        learned = variables["params"]["query"][None]  # enter the first chunk
        entered = jnp.where(number == 0, learned, entered)
        part = FrameSpan(batch.images, batch.sizes, truth_of(batch), None)
        found, entered, _ = chunk_predictions(model, variables, part, entered, settings)
        points = jax.random.fold_in(jax.random.split(key)[0], number)
        seen = jnp.ones((1, 2), jnp.float32)  # the content fills the canvas
        terms, matched = loss_terms(
            found, part.truth, points, settings.loss, matched, seen
        )
        return sum(terms.values()), (entered, matched)

    return loss
