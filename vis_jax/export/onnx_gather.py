"""Batched slices of one row in a form that jax2onnx writes correctly.

`x[i]` under `jax.vmap` is a gather with batching dimensions whose index also has a
coordinate for every axis that is taken whole. jax2onnx 0.17 then takes a single number
instead of a row, without an error.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn
from jax.lax import GatherDimensionNumbers, GatherScatterMode

# In these an index of an axis that is taken whole can only be 0.
_IN_BOUNDS = (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS)


def gather(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Runs `gather`; if batched, its index has no axes that are taken whole.

    Args:
      eqn: the operation.
      values: operand and indices.
    """
    operand, indices = values
    params = eqn.params
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    taken = [*numbers.start_index_map]
    places = [i for i, a in enumerate(taken) if sizes[a] != operand.shape[a]]
    axes = [taken[i] for i in places]
    plain = not numbers.operand_batching_dims or params["mode"] not in _IN_BOUNDS
    if plain or not axes or any(sizes[a] != 1 for a in axes):
        return [eqn.primitive.bind(*values, **params)]
    collapsed = {*numbers.collapsed_slice_dims, *axes}
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    slices = [a for a in range(operand.ndim) if a not in gone]
    shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]
    dropped = {
        place
        for place, a in zip(numbers.offset_dims, slices, strict=True)
        if a in collapsed
    }
    left = [place for place in range(len(shape)) if place not in dropped]
    found = jax.lax.gather(
        operand,
        jnp.concatenate([indices[..., i : i + 1] for i in places], axis=-1),
        GatherDimensionNumbers(
            tuple(i for i, p in enumerate(left) if p in numbers.offset_dims),
            tuple(sorted(collapsed)),
            tuple(axes),
            numbers.operand_batching_dims,
            numbers.start_indices_batching_dims,
        ),
        sizes,
        mode=params["mode"],
    )
    return [found.reshape(shape)]
