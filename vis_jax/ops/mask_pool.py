"""Features of soft masks that compete for the pixels."""

import jax
import jax.numpy as jnp

from vis_jax.ops.bilinear import resize
from vis_jax.typing import Array, Bool, Float32

_EPSILON = 1e-4  # pixels, as in RGNNVIS
_NOTHING = -1e9


def mask_pool(
    features: Float32[Array, "h w C"],
    logits: Float32[Array, "N H W"],
    valid: Bool[Array, "N"],
    *,
    background: float,
) -> Float32[Array, "N C"]:
    """Mean of the features over each mask, weighted by a softmax over the masks.

    Every pixel is shared out among the masks and a background of constant logit.
    Source: the released code of Johnander et al., "Video Instance Segmentation with
    Recurrent Graph Neural Networks", GCPR 2021.

    Args:
      features: a map; the logits are resized to it, without antialiasing.
      logits: of the masks.
      valid: False marks masks that take no pixel.
      background: logit of what belongs to no mask.

    Returns:
      Features; 0 for invalid masks, and nearly 0 for those without a pixel.
    """
    height, width = features.shape[:2]
    planes = resize(logits[..., None], (height, width))[..., 0]
    planes = jnp.where(valid[:, None, None], planes, _NOTHING)
    planes = jnp.concatenate([jnp.full_like(planes[:1], background), planes])
    shares = jax.nn.softmax(planes, axis=0)[1:]
    pooled = jnp.einsum(
        "nhw,hwc->nc", shares, features, precision=jax.lax.Precision.HIGHEST
    )
    return pooled / (shares.sum(axis=(1, 2))[:, None] + _EPSILON)
