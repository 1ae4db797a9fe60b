"""Counts FLOPs of matrix products and convolutions in a traced function.

XLA counts loop bodies once and, on CPUs, omits library calls.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def product_flops(jaxpr: Jaxpr | ClosedJaxpr) -> float:
    """Counts the FLOPs of all products; a multiply-add is 2.

    A scan body counts once per iteration, a while body once, and of branches the most
    expensive one. Rematerialised operations count again.

    Args:
      jaxpr: jaxpr for all devices together, e.g. of `jax.jit(f).trace(..)`.
    """
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr = jaxpr.jaxpr
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = equation.invars[0].aval, equation.outvars[0].aval
        return 2.0 * out.size * math.prod(left.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval, equation.outvars[0].aval
        outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        # Zeros inserted by the gradient of a strided convolution cost nothing.
        inserted = math.prod(params["lhs_dilation"])
        return 2.0 * out.size * kernel.size / outputs / inserted
    inner = [product_flops(one) for one in _inner(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * params.get("length", 1) if name == "scan" else sum(inner)


def _inner(params: dict) -> Iterator[Jaxpr | ClosedJaxpr]:
    """Yields the jaxprs that an equation calls."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, Jaxpr | ClosedJaxpr):
                yield one
