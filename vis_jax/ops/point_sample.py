"""Random points at which mask losses are taken (PointRend, section 3.1)."""

import jax
import jax.numpy as jnp

from vis_jax.ops.bilinear import sample
from vis_jax.typing import Array, Float32, PRNGKeyArray, typed

OVERSAMPLE = 3  # candidates for each point
IMPORTANCE = 0.75  # share of the points chosen by uncertainty


@typed
def uncertain_points(
    key: PRNGKeyArray, logits: Float32[Array, "H W"], num_points: int
) -> Float32[Array, "P 2"]:
    """Points of one map, three quarters of them where its logit is nearest to 0.

    Kirillov et al., "PointRend", CVPR 2020; as in Mask2Former, 3 P uniform candidates,
    of which the 0.75 P most uncertain are kept, and 0.25 P new uniform points.

    Args:
      key: random key of this map.
      logits: the predicted map; no gradient goes through the choice.
      num_points: P.

    Returns:
      x, y in [0, 1].
    """
    keep = int(IMPORTANCE * num_points)
    key_candidates, key_rest = jax.random.split(key)
    candidates = jax.random.uniform(key_candidates, (OVERSAMPLE * num_points, 2))
    uncertainty = -jnp.abs(sample(jax.lax.stop_gradient(logits), candidates))
    _, chosen = jax.lax.top_k(uncertainty, keep)
    rest = jax.random.uniform(key_rest, (num_points - keep, 2))
    return jnp.concatenate([candidates[chosen], rest])
