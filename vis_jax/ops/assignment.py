"""Matches predictions to instances: one-to-one, or by embedding similarity."""

import jax
import jax.numpy as jnp
import optax

from vis_jax.typing import Array, Bool, Float32, Int32

_INVALID = -1e9  # finite, so that softmax gradients stay finite


def hungarian(
    cost: Float32[Array, "Q M"], instance_valid: Bool[Array, "M"]
) -> Int32[Array, "M"]:
    """Returns the row assigned to each column in the assignment of least total cost.

    Padded columns get a constant cost: they take rows that the real columns leave free,
    so they do not change the optimum as long as Q >= M.

    Args:
      cost: cost of giving prediction q to instance m.
      instance_valid: False marks padded columns.

    Returns:
      For each instance its prediction; distinct rows, arbitrary for padded columns.

    Raises:
      ValueError: there are more columns than rows.
    """
    rows, columns = cost.shape
    if rows < columns:
        raise ValueError(
            f"matching needs at least as many queries as instance slots: {rows} queries"
            f" for {columns} slots; raise the number of queries or lower data.instances"
        )
    # A non-finite cost would make the search endless; the losses report it.
    cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
    cost = jnp.where(instance_valid[None], cost, 0.0)
    row, column = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(columns, jnp.int32).at[column].set(row.astype(jnp.int32))


def match_logits(
    embeds: Float32[Array, "R E"],
    memory: Float32[Array, "M E"],
    memory_valid: Bool[Array, "M"],
) -> Float32[Array, "R 1+M"]:
    """Returns logits over "none" and the objects in memory.

    Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2. Dot products are
    neither normalised nor scaled, so they are computed in full float32.

    Args:
      embeds: embeddings of the regions.
      memory: embeddings of the known objects.
      memory_valid: False marks padding in the memory.

    Returns:
      Column 0, "none", is 0; column n belongs to object n - 1, and is a large negative
      number where that is padding.
    """
    dots = jnp.matmul(embeds, memory.T, precision=jax.lax.Precision.HIGHEST)
    dots = jnp.where(memory_valid[None], dots, _INVALID)
    return jnp.pad(dots, ((0, 0), (1, 0)))
