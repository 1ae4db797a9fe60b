"""Losses on who is who. Letters: B images, R regions, M objects to choose from."""

import jax
import jax.numpy as jnp
import optax

from vis_jax.ops.assignment import match_logits
from vis_jax.typing import Array, Bool, Float32, Int32


def match_loss(
    logits: Float32[Array, "*lead R M1"],
    targets: Int32[Array, "*lead R"],
    positive: Bool[Array, "*lead R"],
) -> Float32[Array, ""]:
    """Cross-entropy averaged over the positives of each image, then over the images.

    L_track of Yang et al., "Video Instance Segmentation", ICCV 2019. An image without
    positives counts as 0.
    Deviation: the released code also takes an image with exactly one positive as 0, by
    a slip in how it lists them.

    Args:
      logits: of each region; column 0 is "none of them", see
        `vis_jax.ops.assignment`.
      targets: columns, 0 .. M; read where positive. No column of padding.
      positive: regions that stand for a true object.
    """
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    count = jnp.maximum(positive.sum(axis=-1), 1).astype(jnp.float32)
    return (jnp.where(positive, losses, 0.0).sum(axis=-1) / count).mean()


def track_loss(
    embeds: Float32[Array, "B R E"],
    reference: Float32[Array, "B M E"],
    truth: Int32[Array, "B R"],
    *,
    counted: Bool[Array, "B R"],
    present: Bool[Array, "B M"],
) -> Float32[Array, ""]:
    """Which object of a reference frame each region of a key frame shows.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2.

    Args:
      embeds: of the regions.
      reference: of the objects in the reference frame.
      truth: slot of the object that a region shows, the same in both frames.
      counted: regions that show one.
      present: objects that are in the reference frame; all others are "none of them".
    """
    logits = jax.vmap(match_logits)(embeds, reference, present)
    there = jnp.take_along_axis(present, truth, axis=1)
    return match_loss(logits, jnp.where(there, truth + 1, 0), counted)
