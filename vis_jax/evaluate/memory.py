"""How much memory a program needs for a clip, found from shapes alone."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend import core

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of Linux control groups, in bytes


def peak_bytes(program: core.ClosedJaxpr) -> int:
    """Bytes that are alive at once while a traced program runs, arguments included.

    Nothing is compiled. Operations are taken one by one: results that a compiler fuses
    away are counted, and copies that it makes in another layout are not.
    """
    jaxpr = program.jaxpr
    inputs = sum(map(_bytes, [*jaxpr.invars, *jaxpr.constvars]))
    return inputs + _peak(jaxpr)


def machine_bytes() -> int:
    """The memory of the default device; of a CPU, that of the machine or container."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # none, or "max"
        found.append(int(CONTAINER_LIMIT.read_text()))
    return min(found)


def _peak(jaxpr: core.Jaxpr) -> int:
    """The most bytes that the operations of a program keep, without its inputs."""
    last = {}
    for index, equation in enumerate(jaxpr.eqns):
        last.update({x: index for x in equation.invars if isinstance(x, core.Var)})
    last.update({x: len(jaxpr.eqns) for x in jaxpr.outvars if isinstance(x, core.Var)})
    ends: dict[int, list[core.Var]] = {}
    kept = peak = 0
    for index, equation in enumerate(jaxpr.eqns):
        kept += sum(map(_bytes, equation.outvars))
        inside = max(map(_peak, _inner(equation.params)), default=0)
        peak = max(peak, kept + inside)
        for x in equation.outvars:
            ends.setdefault(last.get(x, index), []).append(x)
        kept -= sum(map(_bytes, ends.pop(index, [])))
    return peak


def _inner(params: dict) -> Iterator[core.Jaxpr]:
    """The programs that an operation runs, such as the body of a loop."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def _bytes(x: Any) -> int:
    size = getattr(getattr(x.aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(x.aval, "shape", ())) * size
