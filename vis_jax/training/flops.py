"""Operations of matrix products and convolutions, counted in a traced function.

XLA counts the body of a loop once, and on a CPU not what it hands to a library.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def product_flops(jaxpr: Jaxpr | ClosedJaxpr) -> float:
    """Operations of all products; a multiply-add is 2.

    The body of a scan counts as often as it runs, that of a while loop once, and of
    branches the one with the most. What a backward pass computes again counts again.

    Args:
      jaxpr: such as that of `jax.jit(f).trace(..)`; of all devices together.
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
        # Zeros between the inputs, of a strided convolution's gradient, cost nothing.
        inserted = math.prod(params["lhs_dilation"])
        return 2.0 * out.size * kernel.size / outputs / inserted
    inner = [product_flops(one) for one in _inner(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * params.get("length", 1) if name == "scan" else sum(inner)


def _inner(params: dict) -> Iterator[Jaxpr | ClosedJaxpr]:
    """The functions that an operation calls."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, Jaxpr | ClosedJaxpr):
                yield one
