"""Which object of a memory a region shows: dot products of embeddings."""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32

_INVALID = -1e9  # finite, so that gradients of a softmax stay finite


def match_logits(
    embeds: Float32[Array, "R E"],
    memory: Float32[Array, "M E"],
    memory_valid: Bool[Array, "M"],
) -> Float32[Array, "R 1+M"]:
    """Logits over "none of the memory" and its objects.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2. Dot products are
    neither normalised nor scaled, hence computed in full float32.

    Args:
      embeds: of the regions.
      memory: embeddings of the objects known.
      memory_valid: False marks padding in the memory.

    Returns:
      Column 0, "none", is 0; column n belongs to object n - 1, and is large and
      negative where that is padding.
    """
    dots = jnp.matmul(embeds, memory.T, precision=jax.lax.Precision.HIGHEST)
    dots = jnp.where(memory_valid[None], dots, _INVALID)
    return jnp.pad(dots, ((0, 0), (1, 0)))
