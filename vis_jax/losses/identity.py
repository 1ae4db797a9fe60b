"""Identity losses. Letters: B images, R regions, M objects to choose from."""

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
    """Averages the cross-entropy over the positives of each image, then over images.

    L_track of Yang et al., "Video Instance Segmentation", ICCV 2019. Images without
    positives count as 0. Deviation: the released code also takes an image with exactly
    one positive as 0, due to a bug in how it lists them.

    Args:
      logits: of each region; column 0 is "none", see `vis_jax.ops.assignment`.
      targets: columns, 0 .. M; used where positive. Never a padded column.
      positive: regions assigned to a ground-truth object.
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
    """Returns the loss of matching key-frame regions to reference-frame objects.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2.

    Args:
      embeds: embeddings of the regions.
      reference: embeddings of the objects in the reference frame.
      truth: object slot of each region, the same in both frames.
      counted: regions assigned to an object.
      present: objects in the reference frame; all others are "none".
    """
    logits = jax.vmap(match_logits)(embeds, reference, present)
    in_reference = jnp.take_along_axis(present, truth, axis=1)
    return match_loss(logits, jnp.where(in_reference, truth + 1, 0), counted)
