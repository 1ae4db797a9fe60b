"""Losses on who is who. Letters: R regions, M objects to choose from."""

import jax.numpy as jnp
import optax

from vis_jax.typing import Array, Bool, Float32, Int32


def match_loss(
    match_logits: Float32[Array, "*lead R M1"],
    targets: Int32[Array, "*lead R"],
    positive: Bool[Array, "*lead R"],
) -> Float32[Array, ""]:
    """Cross-entropy averaged over the positives of each image, then over the images.

    L_track of Yang et al., "Video Instance Segmentation", ICCV 2019. An image without
    positives counts as 0.
    Deviation: the released code also takes an image with exactly one positive as 0, by
    a slip in how it lists them.

    Args:
      match_logits: of each region; column 0 is "none of them", see
        `vis_jax.ops.match_logits`.
      targets: columns, 0 .. M; read where positive. No column of padding.
      positive: regions that stand for a true object.
    """
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        match_logits, targets
    )
    count = jnp.maximum(positive.sum(axis=-1), 1).astype(jnp.float32)
    return (jnp.where(positive, losses, 0.0).sum(axis=-1) / count).mean()
