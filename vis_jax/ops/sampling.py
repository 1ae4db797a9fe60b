"""Random choices of a fixed number of candidates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray


class Sampled(NamedTuple):
    """Candidates chosen: positives, then negatives, then padding."""

    chosen: Int32[Array, "S"]  # into the candidates
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
    """Up to `most_positive` positives, filled up with negatives, without replacement.

    Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.3. A random number ranks the
    candidates, so that every subset is equally likely and all shapes are fixed.

    Args:
      rng: key of the draw.
      positive, negative: disjoint; what is in neither is never chosen.
      size: how many to choose; fewer if there are not enough.
      most_positive: how many of these may be positive.

    Raises:
      ValueError: if `size` is not in 1 .. N.
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
    """Positives that stand for all of them."""

    chosen: Int32[Array, "S"]  # into the candidates
    counted: Bool[Array, "S"]  # False: padding
    share: Float32[Array, ""]  # positives for each one chosen
    left_out: Float32[Array, ""]  # positives beyond the most


def sample_positives(
    rng: PRNGKeyArray, positive: Bool[Array, "N"], *, most: int
) -> Subset:
    """All positives, or a random subset of `most`.

    Args:
      rng: key of the choice.
      positive: of the candidates.
      most: how many are chosen; fewer if there are fewer candidates.
    """
    draw = jax.random.uniform(rng, positive.shape)
    rank = jnp.where(positive, draw, -1.0)
    chosen = jax.lax.top_k(rank, min(most, len(rank)))[1]
    counted = positive[chosen]
    found, taken = (x.sum().astype(jnp.float32) for x in (positive, counted))
    return Subset(chosen, counted, found / jnp.maximum(taken, 1.0), found - taken)
