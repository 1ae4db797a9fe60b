"""Overfits one clip whose frames alone do not tell which object is which."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipeline.pad import pad_clip
from tests.compiled import compiled
from tests.recipes import recipe
from vis_jax.losses.clip_queries import truth_of
from vis_jax.structures import Batch
from vis_jax.systems.videomt import build
from vis_jax.systems.videomt_loss import FrameSpan, chunk_predictions
from vis_jax.systems.videomt_model import Model, build_model, call

_LEAST = {
    "model.backbone.dim": 32, "model.backbone.depth": 2, "model.backbone.heads": 2,
    "model.backbone.patch": 8, "model.decoder.blocks": 1, "model.queries": 4,
    "model.num_classes": 2, "model.remat": False, "loss.points": 64,
}  # fmt: skip
_UPDATES = 200


def _clip():
    """Two equal squares change places, one hidden by the other; a third comes last.

    Frames 0 and 2 have the same pixels.
    """
    images = np.full((4, 32, 32, 3), 60, np.uint8)
    masks = np.zeros((3, 4, 32, 32), bool)
    left, middle, right = slice(0, 12), slice(8, 20), slice(20, 32)
    low, high = slice(16, 28), slice(4, 16)
    first, second = (left, middle, right, right), (right, None, left, left)
    for t in range(4):
        masks[0, t, low, first[t]] = True
        if second[t] is not None:
            masks[1, t, low, second[t]] = True
    masks[2, 3, high, middle] = True
    images[masks[:2].any(0)] = 220, 60, 40
    images[masks[2]] = 40, 80, 220
    np.testing.assert_array_equal(images[0], images[2])
    clip = pad_clip(
        images, masks, labels=np.array([0, 0, 1]), track_ids=np.array([1, 2, 3]),
        frames=4, canvas=(32, 32), instances=3,
    )  # fmt: skip
    return Batch(**{name: array[None] for name, array in clip.items()})


def _trained(propagation, batch):
    """Mask logits of every frame and query after training, [T, Q, h, w]."""
    settings = recipe(
        "videomt_shapes", "debug", _LEAST | {"model.propagation": propagation}
    )
    system, model = build(settings), build_model(settings)
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, _UPDATES))

    def train(key, batch):
        variables = dict(system.init(key, batch))

        def update(carry, key):
            variables, state = carry
            gradient = jax.grad(lambda v: system.loss(v, batch, key)[0])(variables)
            change, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, change), state), None

        begin = (variables, optimizer.init(variables))
        (variables, _), _ = jax.lax.scan(update, begin, jax.random.split(key, _UPDATES))
        part = FrameSpan(batch.images, batch.sizes, truth_of(batch), None)
        first = call(model, variables, Model.first, 1)
        found, _, _ = chunk_predictions(model, variables, part, first, settings)
        return found.mask_logits[0, :, 0]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        run = compiled(train)
        return run(jax.random.key(0), jax.tree.map(jnp.asarray, batch))


def _queries(masks, truth):
    """The query that overlaps each object most, [T, M], and its overlap."""
    found = masks > 0
    both = (found[:, :, None] & truth[:, None]).sum((-1, -2))
    either = (found[:, :, None] | truth[:, None]).sum((-1, -2))
    overlap = both / np.maximum(either, 1)  # [T, Q, M]
    return overlap.argmax(1), overlap.max(1)


@pytest.mark.parametrize("propagation", ["fusion", "gru"])
def test_queries_that_propagate_keep_their_objects(propagation):
    """Property 17; without propagation frames 0 and 2 would have the same masks."""
    batch = _clip()
    masks = _trained(propagation, batch)
    truth = np.moveaxis(batch.masks[0, ..., 2::4, 2::4], 0, 1)  # [T, M, h, w]
    seen = truth.any((-1, -2))
    queries, overlap = _queries(masks, truth)
    assert (overlap[seen] > 0.8).all()
    assert [len(set(queries[seen[:, m], m])) for m in range(3)] == [1, 1, 1]
    assert (masks[1, queries[0, 1]] < 0).all()  # hidden behind the other
