"""One-to-one assignment of predictions to instances, padded to static shapes."""

import jax.numpy as jnp
import optax

from vis_jax.typing import Array, Bool, Float32, Int32


def hungarian(
    cost: Float32[Array, "Q M"], instance_valid: Bool[Array, "M"]
) -> Int32[Array, "M"]:
    """The row of each column in the assignment of least total cost.

    Padded columns get a constant cost: they take rows that the real columns leave, and
    so do not change the optimum as long as Q >= M.

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
    # A real cost that is not finite would make the search endless; losses report it.
    cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
    cost = jnp.where(instance_valid[None], cost, 0.0)
    row, column = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(columns, jnp.int32).at[column].set(row.astype(jnp.int32))
