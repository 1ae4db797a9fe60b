"""VidEoMT, and EoMT for images: a plain vision transformer that segments and tracks.

Norouzi et al., "VidEoMT: your ViT is secretly also a video segmentation model", CVPR
2026; Kerssies et al., "Your ViT is secretly an image segmentation model", CVPR 2025.
The first blocks process each frame alone. Queries join the last blocks, frame by frame,
and their outputs enter the next frame (`model.propagation`), so that a query means the
same object in all frames; there is no pixel decoder and no tracker. With propagation
"none" every frame starts afresh, which is EoMT.

PMT and LVMT, 2026, keep the pretrained transformer frozen and give the queries blocks
of their own (`model.decoder.kind` "own"); LVMT's queries pass through a gated unit, and
its long clips are trained in chunks (`loss.chunk`).
"""

import jax.numpy as jnp

from vis_jax.structures import Batch, Clip, LossAux
from vis_jax.systems.system import System, window_of
from vis_jax.systems.videomt_loss import clip_loss
from vis_jax.systems.videomt_model import alignment, build_model
from vis_jax.systems.videomt_settings import Settings
from vis_jax.systems.videomt_video import State, empty_state, step

__all__ = ["Settings", "build", "build_model"]


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: the number of classes is unknown.
    """
    model = build_model(settings)

    def init(rng, batch: Batch):
        return model.init(rng, batch.images[:, 0].astype(jnp.float32))

    def loss(variables, batch: Batch, rng):
        terms, stats = clip_loss(model, settings, variables, batch, rng)
        total = sum(terms.values(), start=jnp.float32(0.0))
        return total, LossAux(terms, stats, {})

    def start(clip: Clip):
        del clip
        return empty_state(settings)

    def look(variables, state: State, clip: Clip):
        return step(model, settings, variables, state, clip)

    multiple = alignment(settings.model.backbone.patch)
    window = window_of(settings.test)._replace(multiple=multiple)
    return System(init, loss, start, look, window, limit="model.queries")
