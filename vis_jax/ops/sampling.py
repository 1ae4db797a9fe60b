"""Random sampling of fixed numbers of candidates, and of points on masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.bilinear import sample
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

OVERSAMPLE = 3  # candidates per point
IMPORTANCE = 0.75  # share of the points chosen by uncertainty


class Sampled(NamedTuple):
    """Sampled candidates: positives, then negatives, then padding."""

    chosen: Int32[Array, "S"]  # indices of the candidates
    positive: Bool[Array, "S"]
    valid: Bool[Array, "S"]


def sample_balanced(
    rng: PRNGKeyArray,
    positive: Bool[Array, "N"],
    negative: Bool[Array, "N"],
    *,
    size: int,
    most_positive: int,
) -> Sampled:
    """Samples up to `most_positive` positives, filled up with negatives.

    Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.3. Sampling is without
    replacement. Candidates are ranked by random numbers, so every subset is equally
    likely and all shapes are fixed.

    Args:
      rng: random key.
      positive, negative: disjoint; all others are never sampled.
      size: number of samples; fewer if there are not enough candidates.
      most_positive: most positives among them.

    Raises:
      ValueError: `size` is not in 1 .. N.
    """
    count = positive.shape[0]
    if not 1 <= size <= count:
        raise ValueError(f"size: expected 1 .. {count} candidates, got {size}")
    order = jax.random.permutation(rng, count)
    positive, negative = positive[order], negative[order]
    positive &= jnp.cumsum(positive) <= most_positive
    group = jnp.where(positive, 0, jnp.where(negative, 1, 2))
    place = jnp.argsort(group, stable=True)[:size]
    return Sampled(order[place].astype(jnp.int32), positive[place], group[place] < 2)


class Subset(NamedTuple):
    """Random subset of positives that represents all of them."""

    chosen: Int32[Array, "S"]  # indices of the candidates
    counted: Bool[Array, "S"]  # False: padding
    share: Float32[Array, ""]  # positives per sample
    left_out: Float32[Array, ""]  # positives not sampled


def sample_positives(
    rng: PRNGKeyArray, positive: Bool[Array, "N"], *, most: int
) -> Subset:
    """Returns all positives, or a random subset of `most`.

    Args:
      rng: random key.
      positive: which candidates are positive.
      most: most samples; fewer if there are fewer candidates.
    """
    draw = jax.random.uniform(rng, positive.shape)
    rank = jnp.where(positive, draw, -1.0)
    chosen = jax.lax.top_k(rank, min(most, len(rank)))[1]
    counted = positive[chosen]
    found, taken = (x.sum().astype(jnp.float32) for x in (positive, counted))
    return Subset(chosen, counted, found / jnp.maximum(taken, 1.0), found - taken)


def draw_sizes(num_points: int) -> tuple[int, int]:
    """Returns the numbers of uniform draws for P points: candidates, rest."""
    return OVERSAMPLE * num_points, num_points - int(IMPORTANCE * num_points)


def uncertain_points(
    logits: Float32[Array, "H W"],
    candidates: Float32[Array, "N 2"],
    rest: Float32[Array, "R 2"],
) -> Float32[Array, "P 2"]:
    """Samples points of one map, three quarters of them where the logit is near 0.

    Kirillov et al., "PointRend", CVPR 2020; as in Mask2Former, the 0.75 P most
    uncertain of 3 P uniform candidates, then 0.25 P uniform points.

    Args:
      logits: the predicted map; not differentiated.
      candidates, rest: uniform draws, x and y in [0, 1]; see `draw_sizes`.
    """
    keep = candidates.shape[0] // OVERSAMPLE - rest.shape[0]
    uncertainty = -jnp.abs(sample(jax.lax.stop_gradient(logits), candidates))
    _, chosen = jax.lax.top_k(uncertainty, keep)
    return jnp.concatenate([candidates[chosen], rest])
