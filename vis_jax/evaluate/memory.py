"""Estimates the memory that a program needs for a clip from shapes alone."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import core

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # limit in bytes

LOOPS = ("scan", "while")
VIEWS = ("broadcast_in_dim", "copy", "expand_dims", "reshape", "squeeze")
IN_PLACE = (
    *("abs", "add", "add_any", "and", "clamp", "convert_element_type", "div", "eq"),
    *("erf", "exp", "floor", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt"),
    *("max", "min", "mul", "ne", "neg", "not", "or", "pow", "round", "rsqrt"),
    *("select_n", "sign", "sqrt", "square", "stop_gradient", "sub", "tanh"),
)


def peak_bytes(program: core.ClosedJaxpr) -> int:
    """Returns the peak of live bytes while a traced program runs, with its arguments.

    Nothing is compiled. Views take no memory, and elementwise operations reuse that of
    an argument that is not needed again. Other arrays that a compiler would fuse away
    are counted; copies that it would make in another layout are not.
    """
    jaxpr = program.jaxpr
    inputs = sum(map(_bytes, [*jaxpr.invars, *jaxpr.constvars]))
    return inputs + _peak(jaxpr)


def machine_bytes() -> int:
    """Returns the memory of the default device in bytes.

    For a CPU, that is the memory of the machine or container.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # none, or "max"
        found.append(int(CONTAINER_LIMIT.read_text()))
    return min(found)


def _peak(jaxpr: core.Jaxpr) -> int:
    """Returns the peak of live bytes of a program's operations, without its inputs."""
    owners = _owners(jaxpr)
    last: dict[core.Var, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last.update(dict.fromkeys(_read(equation.invars, owners), index))
    last.update(dict.fromkeys(_read(jaxpr.outvars, owners), len(jaxpr.eqns)))
    made: set[core.Var] = set()
    kept = peak = 0
    for index, equation in enumerate(jaxpr.eqns):
        new = [x for x in equation.outvars if owners.get(x, x) is x]
        over = [x for x in _read(equation.invars, owners) & made if last[x] == index]
        more, name = sum(map(_bytes, new)), equation.primitive.name
        inside = max(map(_peak, _inner(equation.params)), default=0)
        # Outputs of a called program are counted inside it; a loop stacks them.
        most = more + inside if name in LOOPS else max(more, inside)
        if _in_place(equation):
            most -= min(more, max(map(_bytes, over), default=0))
        peak = max(peak, kept + most)
        unused = [x for x in new if x not in last]
        made.update(new)
        kept += more - sum(map(_bytes, [*over, *unused]))
    return peak


def _owners(jaxpr: core.Jaxpr) -> dict[core.Var, core.Var]:
    """Maps each view to the array that owns its memory."""
    owners: dict[core.Var, core.Var] = {}
    for equation in jaxpr.eqns:
        source = equation.invars[0] if equation.invars else None
        if equation.primitive.name in VIEWS and isinstance(source, core.Var):
            owners[equation.outvars[0]] = owners.get(source, source)
    return owners


def _in_place(equation: core.JaxprEqn) -> bool:
    """Returns whether an operation, with all it calls, may overwrite an argument."""
    name, called = equation.primitive.name, list(_inner(equation.params))
    if not called or name in LOOPS:
        return name in IN_PLACE
    return all(
        one.primitive.name in VIEWS or _in_place(one)
        for program in called
        for one in program.eqns
    )


def _read(arrays: Sequence, owners: dict[core.Var, core.Var]) -> set[core.Var]:
    return {owners.get(x, x) for x in arrays if isinstance(x, core.Var)}


def _inner(params: dict) -> Iterator[core.Jaxpr]:
    """Returns the programs that an operation runs, such as the body of a loop."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def _bytes(x: Any) -> int:
    size = getattr(getattr(x.aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(x.aval, "shape", ())) * size
