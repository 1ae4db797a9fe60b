"""Frame pairs for training a track head: a key frame and a reference frame.

Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019, section 4. Letters: B clips, M
ground-truth objects.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.rcnn_targets import ImageTruth
from vis_jax.structures import Batch
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray


class Roles(NamedTuple):
    """Key and reference frame of each clip."""

    key: Int32[Array, "B"]
    reference: Int32[Array, "B"]


class Pair(NamedTuple):
    """Key frames with ground truth, and the objects' boxes in the reference frames."""

    images: Array  # float32 [2 B, H, W, 3], key frames first
    truth: ImageTruth  # key frames only
    masks: Bool[Array, "B M H W"]  # key frames only
    reference_boxes: Float32[Array, "B M 4"]
    reference_present: Bool[Array, "B M"]
    reference_masks: Bool[Array, "B M H W"]


def draw_roles(rng: PRNGKeyArray, frame_valid: Bool[Array, "B T"]) -> Roles:
    """Draws a random key frame per clip and another frame; the same one for T = 1.

    As in the paper, roles are drawn at random.
    """
    rank = jax.random.uniform(rng, frame_valid.shape)
    order = jnp.argsort(jnp.where(frame_valid, rank, 2.0), axis=1)
    key, other = order[:, 0], order[:, min(1, order.shape[1] - 1)]
    real = frame_valid[jnp.arange(len(key)), other]
    return Roles(key, jnp.where(real, other, key))


def frames_at(images: Any, frames: Int32[Array, "B"]) -> Any:
    """Selects one frame per clip from arrays whose first axis is B x T."""
    count = len(frames)
    return jax.tree.map(
        lambda x: x.reshape(count, -1, *x.shape[1:])[jnp.arange(count), frames], images
    )


def draw_pair(rng: PRNGKeyArray, batch: Batch, *, style: str) -> Pair:
    """Returns the frames of `draw_roles`, normalised, with their objects."""
    key, other = draw_roles(rng, batch.frame_valid)
    rows = jnp.arange(len(key))
    images = jnp.concatenate([batch.images[rows, key], batch.images[rows, other]])
    pixels = jax.vmap(functools.partial(normalize, style=style))
    sizes = jnp.concatenate([batch.sizes, batch.sizes])
    present = batch.present & batch.instance_valid[..., None]
    return Pair(
        images=pixels(images[:, None], sizes)[:, 0],
        truth=ImageTruth(
            batch.boxes[rows, :, key], batch.labels, present[rows, :, key]
        ),
        masks=batch.masks[rows, :, key],
        reference_boxes=batch.boxes[rows, :, other],
        reference_present=present[rows, :, other],
        reference_masks=batch.masks[rows, :, other],
    )
