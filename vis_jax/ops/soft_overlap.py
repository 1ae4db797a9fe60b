"""Overlap of soft tubes: masks with values in [0, 1] over the frames of a clip."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32

_EPSILON = 1e-6  # in the soft IoU, as in IFC


class FrameOverlaps(NamedTuple):
    """Overlap of pairs of soft tubes per frame, in pixels."""

    intersection: Float32[Array, "N M T"]  # sum(a b)
    union: Float32[Array, "N M T"]  # sum(a + b - a b); near 0 where both are empty

    def iou(self) -> Float32[Array, "N M T"]:
        """Returns the IoU in [0, 1]; 0 where both are empty."""
        return self.intersection / jnp.maximum(self.union, _EPSILON)


def soft_iou(
    a: Float32[Array, "N T H W"],
    b: Float32[Array, "M T H W"],
    shared: Bool[Array, "N T"],
) -> Float32[Array, "N M"]:
    """Returns the soft IoU: sum(a b) / sum(a + b - a b), over pixels and shared frames.

    Hwang et al., "Video Instance Segmentation using Inter-Frame Communication
    Transformers", NeurIPS 2021, section 3.3.

    Args:
      a, b: probabilities.
      shared: frames in which tube n of `a` is compared with every tube of `b`.

    Returns:
      Values in [0, 1]; 0 where no frame is shared.
    """
    both = _product(a, b, shared)
    one = jnp.where(shared, a.sum((2, 3)), 0.0).sum(1)
    other = _dot(shared, b.sum((2, 3)))
    return both / (one[:, None] + other - both + _EPSILON)


def soft_iou_frames(
    a: Float32[Array, "N T H W"], b: Float32[Array, "M T H W"]
) -> FrameOverlaps:
    """Returns the soft intersection and union per frame.

    Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
    Video with Mask Propagation", CVPR 2020, Eq. 3.

    Args:
      a, b: probabilities, over the same frames.
    """
    a, b = (x.reshape(*x.shape[:2], -1) for x in (a, b))
    both = jnp.einsum("ntp,mtp->nmt", a, b, precision=jax.lax.Precision.HIGHEST)
    return FrameOverlaps(both, a.sum(2)[:, None] + b.sum(2)[None] - both)


def soft_match_cost(
    logits: Float32[Array, "Q T H W"],
    probs: Float32[Array, "M T H W"],
    shared: Bool[Array, "M T"],
) -> Float32[Array, "Q M"]:
    """Returns 5 BCE + 5 (1 - DICE) of predictions against soft tubes as targets.

    The mask terms of Eq. 4 of You et al., "Consistent Video Instance Segmentation with
    Inter-Frame Recurrent Attention", 2022, over all pixels of the shared frames.

    Args:
      logits: logits of the predictions.
      probs: target tubes.
      shared: frames in which tube m is compared with all predictions.
    """
    pixels = probs.shape[2] * probs.shape[3]
    count = jnp.maximum(shared.sum(1), 1).astype(jnp.float32) * pixels
    softplus = _dot(shared, jax.nn.softplus(logits).sum((2, 3)))
    bce = (softplus - _product(probs, logits, shared)) / count[:, None]
    found = jax.nn.sigmoid(logits)
    truth = jnp.where(shared, probs.sum((2, 3)), 0.0).sum(1)
    total = _dot(shared, found.sum((2, 3))) + truth[:, None]
    dice = (2 * _product(probs, found, shared) + 1) / (total + 1)
    return (5 * bce + 5 * (1 - dice)).T


def _product(
    a: Float32[Array, "N T H W"],
    b: Float32[Array, "M T H W"],
    shared: Bool[Array, "N T"],
) -> Float32[Array, "N M"]:
    """Returns sum(a b) over pixels and the shared frames of a."""
    a = jnp.where(shared[:, :, None, None], a, 0.0).reshape(a.shape[0], -1)
    b = b.reshape(b.shape[0], -1)
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _dot(shared: Bool[Array, "N T"], b: Float32[Array, "M T"]) -> Float32[Array, "N M"]:
    """Returns the sums of b over the frames that each of N tubes shares."""
    shared = shared.astype(jnp.float32)
    return jnp.matmul(shared, b.T, precision=jax.lax.Precision.HIGHEST)
