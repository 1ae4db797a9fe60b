"""Overlap between masks of one image."""

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32


def mask_iou(a: Bool[Array, "N H W"], b: Bool[Array, "M H W"]) -> Float32[Array, "N M"]:
    """Pairwise IoU in [0, 1]; 0 where both masks are empty."""
    # Float counts turn the intersection into one matrix product; they are exact below
    # 2^24 pixels.
    pixels_a = a.reshape(a.shape[0], -1).astype(jnp.float32)
    pixels_b = b.reshape(b.shape[0], -1).astype(jnp.float32)
    intersection = pixels_a @ pixels_b.T
    union = pixels_a.sum(1)[:, None] + pixels_b.sum(1)[None] - intersection
    return intersection / jnp.maximum(union, 1.0)
