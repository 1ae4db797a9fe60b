"""Reads the collectives of a compiled program from its HLO text.

The text describes one device; XLA's grammar: https://openxla.org/xla/hlo_text.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    "collective-permute",
)
BITS = {"pred": 8, "bf16": 16, "tf32": 32}  # other names end in their bits

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:body|calls|to_apply|\w+_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
_AXIS = re.compile(r"'([^']+)'(?:=(\d+)|:\((\d+)\)(\d+))?")


class Collective(NamedTuple):
    """One instruction that moves data between devices."""

    kind: str  # one of KINDS
    size: int  # bytes of its result on one device
    times: int  # executions per step; 1 in a loop of unknown length
    groups: np.ndarray  # int [groups, members]: devices that exchange data

    @property
    def sent(self) -> float:
        """Bytes that a device sends per step, with ring algorithms.

        Thakur et al., "Optimization of Collective Communication Operations in MPICH",
        2005: (n - 1) / n of the whole, twice for an all-reduce.
        """
        members = self.groups.shape[1]
        share = (members - 1) / members
        match self.kind:
            case "all-reduce":
                one = 2 * share * self.size
            case "reduce-scatter":  # the result is one of n parts
                one = share * self.size * members
            case "collective-permute":
                one = self.size
            case _:
                one = share * self.size
        return one * self.times


def collectives(text: str) -> list[Collective]:
    """Returns all collectives of a program, with trip counts of those in loops.

    Args:
      text: `compiled.as_text()`.

    Raises:
      ValueError: device groups are in an unknown format.
    """
    computations, entry = _computations(text)
    found = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    devices = int(found[1]) if found else 1
    return list(_of(entry, computations, 1, devices))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns instructions by computation name, and the name of the entry."""
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head[2]
            lines[name] = []
            entry = name if head[1] else entry
        elif name and " = " in line:
            lines[name].append(line)
    return lines, entry


def _of(
    name: str, computations: dict[str, list[str]], times: int, devices: int
) -> Iterator[Collective]:
    for line in computations.get(name, ()):
        found = _COLLECTIVE.search(line)
        if found:
            groups = _groups(line, devices)
            if groups.shape[1] > 1:
                yield Collective(found[2], _size(found[1]), times, groups)
            continue
        trips = _TRIPS.search(line) if " while(" in line else None
        inner = times * (int(trips[1]) if trips else 1)
        called = _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [one.strip().lstrip("%") for one in branches.split(",")]
        for one in called:
            yield from _of(one, computations, inner, devices)


def _size(shape: str) -> int:
    """Returns the bytes of a shape such as f32[2,3]{1,0}, or of a tuple of shapes."""
    total = 0
    for dtype, axes in _ARRAY.findall(shape):
        bits = BITS.get(dtype) or int(re.findall(r"\d+", dtype)[0])
        total += bits * math.prod(_numbers(axes)) // 8
    return total


def _groups(line: str, devices: int) -> np.ndarray:
    """Parses the device groups, one per row."""
    text = line.partition("replica_groups=")[2]
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        return np.array([_numbers(one) for one in re.findall(r"\d+,\d+", pairs[1])])
    if text.startswith("{}") or not text:
        return np.arange(devices)[None]
    if text.startswith("{{"):
        rows = text[: text.index("}}")].strip("{").split("},{")
        return np.array([_numbers(row) for row in rows])
    iota, mesh = _IOTA.match(text), _MESH.match(text)
    if iota:
        return _iota(iota[2], iota[3]).reshape(_numbers(iota[1]))
    if mesh:
        return _mesh_groups(mesh)
    raise ValueError(f"HLO: expected groups of devices, got {text[:80]!r}")


def _mesh_groups(found: re.Match) -> np.ndarray:
    """Parses groups along mesh axes, or parts 'name':(before)length of them."""
    lengths = {name: int(size) for name, size, *_ in _AXIS.findall(found[1])}
    split: dict[str, list[tuple[int, int]]] = {name: [] for name in lengths}
    for name, _, before, length in _AXIS.findall(found[4]):
        whole = (1, lengths[name])
        split[name].append((int(before), int(length)) if length else whole)
    shape: list[int] = []
    moved: list[int] = []
    for name, size in lengths.items():
        done = 1
        for before, length in sorted(split[name]):
            shape += [before // done, length]
            moved.append(len(shape) - 1)
            done = before * length
        shape.append(size // done)
    ids = _iota(found[2] or str(math.prod(shape)), found[3]).reshape(shape)
    members = math.prod(shape[axis] for axis in moved)
    kept = [axis for axis in range(len(shape)) if axis not in moved]
    return ids.transpose(*kept, *moved).reshape(-1, members)


def _iota(shape: str, order: str | None) -> np.ndarray:
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",") if one]
