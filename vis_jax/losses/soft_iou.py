"""The propagation loss of MaskProp: soft IoU of each instance in each frame."""

from typing import Literal

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32

Normalisation = Literal["mean", "sum"]


def soft_iou_loss(
    probs: Float32[Array, "N T H W"],
    truth: Float32[Array, "N T H W"],
    valid: Bool[Array, "N T"],
    *,
    epsilon: float,
    normalisation: Normalisation,
) -> Float32[Array, ""]:
    """Returns the soft IoU loss, 1 - sum(a b) / sum(a + b - a b), summed over frames.

    Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
    Video with Mask Propagation", CVPR 2020, Eq. 2-3.

    Args:
      probs: propagated masks of a centre frame's instances, over frames.
      truth: in [0, 1]; 0 everywhere if the object is not in the frame.
      valid: False marks padded instances or frames, which are ignored.
      epsilon: pixels added to numerator and denominator. Without it, an object absent
        from a frame has a loss of 1 for every prediction; with it, the prediction is
        pushed to zero. Should not be tiny: the gradient is epsilon / (sum(a) +
        epsilon)^2.
      normalisation: "sum" over instances, as in the paper; "mean" over those valid in
        any frame, so that the loss does not grow with their number.

    Returns:
      The loss; 0 without valid instances.
    """
    loss = jnp.where(valid, 1 - _overlap(probs, truth, epsilon), 0.0).sum()
    if normalisation == "sum":
        return loss
    return loss / jnp.maximum(valid.any(axis=1).sum(), 1).astype(jnp.float32)


def _overlap(
    a: Float32[Array, "N T H W"], b: Float32[Array, "N T H W"], epsilon: float
) -> Float32[Array, "N T"]:
    """Returns the soft IoU; 0 where both are empty and `epsilon` is 0."""
    both = (a * b).sum(axis=(2, 3))
    either = a.sum(axis=(2, 3)) + b.sum(axis=(2, 3)) - both + epsilon
    # Selected before dividing: a branch not taken must not have a NaN gradient.
    empty = either <= 0
    return jnp.where(empty, 0.0, (both + epsilon) / jnp.where(empty, 1.0, either))
