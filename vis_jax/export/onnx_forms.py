"""Rewrites a computation with operations that jax2onnx can write.

A traced function is evaluated again, operation by operation. Nested functions are
inlined, and short loops unrolled, because jax2onnx loses the types of arrays in their
bodies. Some scatters become comparisons, and the maximum of two arrays a `where`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from vis_jax.export.onnx_gather import gather
from vis_jax.export.onnx_scatter import KINDS, choice, scatter

_FEW = 4  # maximum number of steps of an unrolled loop
# Parameter that holds the function called by an operation.
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
}


@runtime_checkable
class RewriteRule(Protocol):
    """Evaluates an operation in another form."""

    def __call__(self, eqn: JaxprEqn, values: Sequence[Any], /) -> Sequence[Any]:
        """Returns the results of the operation.

        Args:
          eqn: the operation.
          values: its arguments.
        """
        ...


def plain(closed: ClosedJaxpr) -> Callable[..., list]:
    """Returns a function that evaluates a traced one with the operations rewritten.

    Args:
      closed: as `jax.make_jaxpr` returns it.
    """

    def run(*arrays: Any) -> list:
        return _run(closed, arrays)

    return run


def _run(closed: ClosedJaxpr, arrays: Sequence[Any]) -> list:
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= zip(jaxpr.invars, arrays, strict=True)

    def value(name: Any) -> Any:
        return name.val if isinstance(name, Literal) else known[name]

    for eqn in jaxpr.eqns:
        rule = _RULES.get(eqn.primitive.name, _same)
        found = rule(eqn, [value(name) for name in eqn.invars])
        known |= zip(eqn.outvars, found, strict=True)
    return [value(name) for name in jaxpr.outvars]


def _same(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    if (inner := _CALLS.get(eqn.primitive.name)) is not None:
        return _run(eqn.params[inner], values)
    found = eqn.primitive.bind(*values, **eqn.params)
    return found if eqn.primitive.multiple_results else [found]


def _scan(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    params = eqn.params
    body, length = params["jaxpr"], params["length"]
    ends = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry = values[: ends[0]], [*values[ends[0] : ends[1]]]
    rows = values[ends[1] :]

    def step(carry: list, row: Sequence[Any]) -> tuple[list, list]:
        found = _run(body, (*consts, *carry, *row))
        return found[: len(carry)], found[len(carry) :]

    if not 0 < length <= _FEW:
        reverse = params["reverse"]
        carry, found = jax.lax.scan(step, carry, [*rows], length, reverse=reverse)
        return [*carry, *found]
    steps = [*range(length)][:: -1 if params["reverse"] else 1]
    made: list = [None] * length
    for i in steps:
        carry, made[i] = step(carry, [x[i] for x in rows])
    return [*carry, *(jnp.stack(x) for x in zip(*made, strict=True))]


def _while(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    params = eqn.params
    ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    first, second = values[: ends[0]], values[ends[0] : ends[1]]

    # The condition of a batched loop has one element per loop, otherwise shape [].
    def conditions(state: Sequence[Any]) -> Any:
        return _run(params["cond_jaxpr"], (*first, *state))[0]

    def once(state: Sequence[Any]) -> list:
        found = _run(params["body_jaxpr"], (*second, *state))
        if not (going := conditions(state)).ndim:
            return found
        pairs = zip(found, state, strict=True)
        return [jnp.where(_as_wide(going, x), x, y) for x, y in pairs]

    begin = [*values[ends[1] :]]
    return jax.lax.while_loop(lambda state: conditions(state).any(), once, begin)


def _as_wide(going: jax.Array, x: jax.Array) -> jax.Array:
    return going.reshape(*going.shape, *[1] * (x.ndim - going.ndim))


def _platform_index(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Chooses the branch for all other platforms of `jax.lax.platform_dependent`."""
    return [eqn.params["platforms"].index(None)]


def _cond(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    if isinstance(values[0], int):  # from `_platform_index`
        return _run(eqn.params["branches"][values[0]], values[1:])

    def branch(closed: ClosedJaxpr) -> Callable[..., list]:
        return lambda *arrays: _run(closed, arrays)

    index, *rest = values
    return jax.lax.switch(index, [*map(branch, eqn.params["branches"])], *rest)


def _extreme(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Evaluates `max` or `min`, as a `where` if neither argument is a scalar."""
    a, b = values
    if not (jnp.ndim(a) and jnp.ndim(b)) or a.dtype == jnp.bool_:
        return _same(eqn, values)
    return [choice(a > b if eqn.primitive.name == "max" else a < b, a, b)]


_RULES: dict[str, RewriteRule] = {"scan": _scan, "while": _while, "cond": _cond}
_RULES |= {"platform_index": _platform_index, "gather": gather}
_RULES |= dict.fromkeys(("max", "min"), _extreme)
_RULES |= dict.fromkeys(KINDS, scatter)
