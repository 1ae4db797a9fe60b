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

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.backbones.normalize import normalize
from vis_jax.settings import to_dict
from vis_jax.structures import Batch, Clip, LossAux
from vis_jax.systems.system import RETRAIN, Encoder, System, window_of
from vis_jax.systems.videomt_loss import clip_loss
from vis_jax.systems.videomt_model import (
    Model,
    alignment,
    build_model,
    call,
    content_of,
)
from vis_jax.systems.videomt_settings import OwnBlocks, Settings
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
    return System(
        init, loss, start, look, window, limit=f"model.queries{RETRAIN}",
        encoder=_encoder(model, settings), chunk=settings.loss.chunk,
    )  # fmt: skip


def _encoder(model: Model, settings: Settings) -> Encoder | None:
    """Makes the encoder of PMT and LVMT; None if queries run through the backbone."""
    given = settings.model
    if not isinstance(given.decoder, OwnBlocks):
        return None

    def encode(variables, images, sizes):
        content = content_of(settings, sizes, model.backbone.grid(*images.shape[1:3]))
        pixels = jax.vmap(lambda x, size: normalize(x[None], size, style="torch")[0])
        pixels = pixels(images, sizes)
        return call(model, variables, Model.encode_levels, pixels, content)

    def inside(size: tuple[int, int], canvas: tuple[int, int]) -> np.ndarray:
        grid = model.backbone.grid(*canvas)
        found = np.ones(grid, bool)
        if given.sees == "content":
            aligned, patch = alignment(given.backbone.patch), given.backbone.patch
            rows, columns = (-(-side // aligned) * aligned // patch for side in size)
            found[rows:] = found[:, columns:] = False
        return np.append(np.ones(model.backbone.prefix, bool), found)

    backbone = to_dict(given.backbone)
    for name in ("remat", "rescale"):  # without effect on features
        del backbone[name]
    known = {f"model.backbone.{name}": value for name, value in backbone.items()}
    known["model.decoder.levels"] = given.decoder.levels
    known |= {"model.sees": given.sees, "compute_dtype": settings.compute_dtype}
    return Encoder(encode, "backbone", known, inside)
