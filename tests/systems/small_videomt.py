"""A small VidEoMT with random variables, and one clip."""

import functools

import jax
import jax.numpy as jnp

from tests.compiled import compiled
from tests.recipes import recipe
from tests.systems.contract import first_batch
from vis_jax.losses.clip_queries import truth_of
from vis_jax.systems.videomt import build, build_model
from vis_jax.systems.videomt_loss import FrameSpan, chunk_predictions
from vis_jax.systems.videomt_model import Model, call

LEAST = {
    "model.backbone.dim": 16, "model.backbone.depth": 2, "model.backbone.heads": 2,
    "model.decoder.blocks": 1, "model.queries": 6, "loss.points": 16,
    "data.frames": 4, "model.remat": False,
}  # fmt: skip


@functools.cache
def made(propagation="fusion"):
    """Settings, random variables of unlike frames, a batch, and its predictions."""
    changes = LEAST | {"model.propagation": propagation}
    settings = recipe("videomt_shapes", "debug", changes)
    model = build_model(settings)
    batch = jax.tree.map(lambda x: x[:1], first_batch(settings))
    system = build(settings)
    variables = compiled(lambda *x: dict(system.init(*x)))(jax.random.key(0), batch)

    @compiled
    def run(variables, images, frame_valid):
        sizes = jnp.asarray(batch.sizes)
        part = FrameSpan(images, sizes, truth_in(batch, frame_valid), None)
        begin = call(model, variables, Model.first, 1)
        found, entered, _ = chunk_predictions(model, variables, part, begin, settings)
        return (*found, entered)

    return settings, variables, batch, run


def truth_in(batch, frame_valid):
    """Targets of a batch whose frames are these."""
    batch = jax.tree.map(jnp.asarray, batch._replace(frame_valid=frame_valid))
    return truth_of(batch)


def frames_of(batch, which):
    """Some frames of a batch."""
    by_object = ("masks", "boxes", "present")
    return batch._replace(
        images=batch.images[:, which],
        frame_valid=batch.frame_valid[:, which],
        **{name: getattr(batch, name)[:, :, which] for name in by_object},
    )
