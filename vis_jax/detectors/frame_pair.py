"""Pairs of frames that train MaskTrack R-CNN: a key frame and a reference frame.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, section 4. Letters: B clips, M
true objects.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.rcnn_targets import Truth
from vis_jax.structures import Batch
from vis_jax.typing import Array, Bool, Float32, PRNGKeyArray


class Pair(NamedTuple):
    """The key frame, and what the reference frame shows of its objects."""

    images: Array  # float32 [2 B, H, W, 3], key frames first
    truth: Truth  # of the key frames
    masks: Bool[Array, "B M H W"]  # of the key frames
    reference_boxes: Float32[Array, "B M 4"]
    reference_present: Bool[Array, "B M"]


def draw_pair(rng: PRNGKeyArray, batch: Batch, *, style: str) -> Pair:
    """A random key frame of every clip and another of its frames; the same for T = 1.

    The paper draws the roles at random, too.
    """
    rank = jax.random.uniform(rng, batch.frame_valid.shape)
    order = jnp.argsort(jnp.where(batch.frame_valid, rank, 2.0), axis=1)
    key, other = order[:, 0], order[:, min(1, order.shape[1] - 1)]
    rows = jnp.arange(len(key))
    other = jnp.where(batch.frame_valid[rows, other], other, key)
    images = jnp.concatenate([batch.images[rows, key], batch.images[rows, other]])
    pixels = jax.vmap(functools.partial(normalize, style=style))
    sizes = jnp.concatenate([batch.sizes, batch.sizes])
    present = batch.present & batch.instance_valid[..., None]
    return Pair(
        images=pixels(images[:, None], sizes)[:, 0],
        truth=Truth(batch.boxes[rows, :, key], batch.labels, present[rows, :, key]),
        masks=batch.masks[rows, :, key],
        reference_boxes=batch.boxes[rows, :, other],
        reference_present=present[rows, :, other],
    )
