"""Random points at which mask losses are taken (PointRend, section 3.1)."""

import jax
import jax.numpy as jnp

from vis_jax.ops.bilinear import sample
from vis_jax.typing import Array, Float32

OVERSAMPLE = 3  # candidates for each point
IMPORTANCE = 0.75  # share of the points chosen by uncertainty


def draw_sizes(num_points: int) -> tuple[int, int]:
    """Uniform draws `uncertain_points` needs for P points: candidates, rest."""
    return OVERSAMPLE * num_points, num_points - int(IMPORTANCE * num_points)


def uncertain_points(
    logits: Float32[Array, "H W"],
    candidates: Float32[Array, "N 2"],
    rest: Float32[Array, "R 2"],
) -> Float32[Array, "P 2"]:
    """Points of one map, three quarters of them where its logit is nearest to 0.

    Kirillov et al., "PointRend", CVPR 2020; as in Mask2Former, of 3 P uniform
    candidates the 0.75 P most uncertain are kept, then 0.25 P uniform points follow.

    Args:
      logits: the predicted map; no gradient goes through the choice.
      candidates, rest: uniform draws, x and y in [0, 1]; see `draw_sizes`.
    """
    keep = candidates.shape[0] // OVERSAMPLE - rest.shape[0]
    uncertainty = -jnp.abs(sample(jax.lax.stop_gradient(logits), candidates))
    _, chosen = jax.lax.top_k(uncertainty, keep)
    return jnp.concatenate([candidates[chosen], rest])
