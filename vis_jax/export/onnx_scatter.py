"""Replaces scatters that jax2onnx cannot write by comparisons of indices.

They have a few dozen positions: track slots, table columns, pixel counts of a mask.
Axes: M updates, N positions, the flattened indexed axes of the operand.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

KINDS = ("scatter", "scatter-add", "scatter-max")
_MOST = 1 << 24  # elements of the operand times elements of the updates


def scatter(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Evaluates a scatter; see `onnx_forms.RewriteRule`.

    A scatter is kept if its indexed axes are the leading ones of the operand, or if its
    updates cover rows only in part.
    """
    numbers = eqn.params["dimension_numbers"]
    batch = [int(i) for i in numbers.operand_batching_dims]
    places = [int(i) for i in numbers.scatter_dims_to_operand_dims]
    leading = not batch and sorted(places) == [*range(len(places))]
    whole = sorted(places) == sorted(int(i) for i in numbers.inserted_window_dims)
    operand, indices, updates = values
    if leading or not whole or operand.size * updates.size > _MOST:
        return [eqn.primitive.bind(*values, **eqn.params)]
    window = [int(i) for i in numbers.update_window_dims]
    rows = [i for i in range(updates.ndim) if i not in window]
    index_batch = [int(i) for i in numbers.scatter_indices_batching_dims]
    # Order of axes: batch, index, row.
    operand = _first(operand, [*batch, *places])
    indices = _first(indices, index_batch)
    own = [rows[i] for i in index_batch]
    updates = _first(updates, [*own, *(i for i in rows if i not in own)])
    sizes = operand.shape[len(batch) :][: len(places)]
    mode = eqn.params["mode"].name

    def one(operand: Any, indices: Any, updates: Any) -> Any:
        row = operand.shape[len(places) :]
        index = indices.reshape(-1, len(places))
        found = _placed(
            eqn.primitive.name,
            operand.reshape(-1, *row),
            _hits(index, sizes, clip=mode == "CLIP"),
            updates.reshape(-1, *row),
        )
        return found.reshape(operand.shape)

    for _ in batch:
        one = jax.vmap(one)
    found = one(operand, indices, updates)
    return [jnp.moveaxis(found, range(len(batch) + len(places)), [*batch, *places])]


def choice(first: Any, a: Any, b: Any) -> Any:
    """Returns `a` where `first` holds or `a` is NaN, else `b`; replaces `Max`, `Min`.

    jax2onnx drops a reshape before these and the inverse one after them, although the
    other argument keeps its shape.
    """
    return jnp.where(first | (a != a), a, b)


def _first(x: Any, axes: Sequence[int]) -> Any:
    return jnp.moveaxis(x, axes, range(len(axes)))


def _hits(index: Any, sizes: Sequence[int], *, clip: bool) -> Any:
    """Returns bool [M, N]: update m writes to position n.

    Indices outside the operand write nowhere, unless they are clipped.
    """
    limits = jnp.asarray(sizes, index.dtype)[None]
    if clip:
        index = jnp.clip(index, 0, limits - 1)
    inside = ((index >= 0) & (index < limits)).all(axis=1)
    strides = np.cumprod([1, *sizes[:0:-1]])[::-1].astype(index.dtype)
    flat = (index * jnp.asarray(strides)[None]).sum(axis=1)
    numbers = jnp.arange(int(np.prod(sizes)), dtype=index.dtype)
    return inside[:, None] & (flat[:, None] == numbers[None])


def _placed(kind: str, rows: Any, hits: Any, updates: Any) -> Any:
    """Returns rows [N, ..] with the updates [M, ..] applied."""
    ones = [1] * (rows.ndim - 1)
    wide, given = hits.reshape(*hits.shape, *ones), updates[:, None]
    if kind == "scatter-add":
        return rows + jnp.where(wide, given, 0).sum(axis=0, dtype=rows.dtype)
    if kind == "scatter-max":
        floating = jnp.issubdtype(rows.dtype, jnp.floating)
        least = -jnp.inf if floating else jnp.iinfo(rows.dtype).min
        most = jnp.where(wide, given, least).max(axis=0)
        return choice(most > rows, most, rows)
    # The last update of a position wins.
    order = jnp.arange(1, len(updates) + 1, dtype=jnp.int32)
    last = jnp.where(hits, order[:, None], 0).max(axis=0)
    taken = jnp.take(updates, jnp.maximum(last - 1, 0), axis=0, mode="clip")
    return jnp.where((last > 0).reshape(-1, *ones), taken, rows)
