"""Tables that map tensors of published files to a model, checked exactly.

Every source tensor is used or dropped for a stated reason, every target is filled or
declared new, and shapes are equal; otherwise one error lists all misfits.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

_SHOWN = 12  # patterns listed in an error

Shape = tuple[int, ...]


@runtime_checkable
class Forward(Protocol):
    """Converts a tensor from file layout to model layout."""

    def __call__(self, tensor: np.ndarray, shape: Shape, /) -> np.ndarray:
        """Returns the tensor for a target of this shape; another shape is a misfit."""
        ...


@runtime_checkable
class InverseTransform(Protocol):
    """Converts an array from model layout to file layout."""

    def __call__(self, array: np.ndarray, outputs: int, /) -> np.ndarray:
        """Returns the tensor in file layout.

        Args:
          array: array of the model.
          outputs: number of trailing axes that are outputs of a layer; 0 for arrays
            other than kernels and biases.
        """
        ...


class Transform(NamedTuple):
    """Both directions of a layout change; calling it goes from file to model.

    Attributes:
      forward, back: inverses, except for what `forward` drops.
      part: index among the equal parts of the tensor's rows that this one takes.
      parts: number of parts.
    """

    forward: Forward
    back: InverseTransform
    part: int = 0
    parts: int = 1

    def __call__(self, tensor: np.ndarray, shape: Shape) -> np.ndarray:
        return self.forward(tensor, shape)


class NameRule(NamedTuple):
    """Targets of the source tensors whose full name matches a regex.

    Attributes:
      source: regex.
      targets: pairs (path, transform); paths may refer to groups as \\1.
      dropped: reason for dropping the tensor; only without targets.
      fresh: if shapes differ, drop the tensor and leave the target new.
    """

    source: str
    targets: tuple[tuple[str, Transform], ...] = ()
    dropped: str = ""
    fresh: bool = False


class Rename(NamedTuple):
    """Another name for the same tensor, or for part of its rows.

    Attributes:
      source: regex for the full name.
      target: new name, with groups as \\1.
      part: index among the tensors whose rows form the new one.
      parts: number of parts.
      alias: an alternative spelling that is read but never written.
    """

    source: str
    target: str
    part: int = 0
    parts: int = 1
    alias: bool = False


class MisfitError(ValueError):
    """Tensors and targets do not match."""


class Renamed(NamedTuple):
    """Tensors under new names, with each one's old names."""

    tensors: dict[str, np.ndarray]
    origins: dict[str, tuple[str, ...]]


class ConvertReport(NamedTuple):
    """Result of a conversion.

    Attributes:
      params: tensors by target path.
      used: target paths by source name.
      dropped: reason by source name.
      new: target paths that keep their initial values.
      notes: report lines on changes and assumptions.
    """

    params: dict[str, np.ndarray]
    used: dict[str, tuple[str, ...]]
    dropped: dict[str, str]
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()


def convert(
    source: Mapping[str, np.ndarray],
    target_shapes: Mapping[str, Shape],
    rules: Sequence[NameRule],
    *,
    new: Sequence[str] = (),
) -> ConvertReport:
    """Fills targets from source tensors; the first rule that matches a name applies.

    Args:
      source: tensors by name.
      target_shapes: shapes by path, collection first: 'params/backbone/..'.
      rules: the table.
      new: regexes of full paths that may keep their initial values.

    Raises:
      MisfitError: lists every source tensor without a rule, every target without a
        source, every target filled twice and every shape mismatch.
    """
    params: dict[str, np.ndarray] = {}
    used, dropped, errors, fresh = {}, {}, [], set()
    table = compiled(rules)
    for name, tensor in source.items():
        match, rule = first_match(table, name)
        if match is None:
            errors.append(f"source {name!r} {list(tensor.shape)}: no rule")
            continue
        if not rule.targets:
            dropped[name] = rule.dropped
            continue
        filled, misfits = _apply(match, rule, tensor, target_shapes)
        if misfits and rule.fresh:
            fresh |= set(misfits)
            dropped[name] = "; ".join(misfits.values())
            continue
        errors += [f"source {name!r}: {message}" for message in misfits.values()]
        errors += [
            f"target {path!r}: filled twice" for path in filled if path in params
        ]
        params |= filled
        used[name] = tuple(filled)
    missing = [path for path in target_shapes if path not in params]
    patterns = [re.compile(pattern) for pattern in new]
    kept = [p for p in missing if p in fresh or any(r.fullmatch(p) for r in patterns)]
    errors += [f"target {p!r}: no source" for p in missing if p not in kept]
    if errors:
        listing = "\n  ".join(by_pattern(errors))
        raise MisfitError(f"the file does not fit, {len(errors)} misfits:\n  {listing}")
    return ConvertReport(params, used, dropped, tuple(kept))


def rename(source: Mapping[str, np.ndarray], renames: Sequence[Rename]) -> Renamed:
    """Renames tensors, joining rows; names without a rule are unchanged.

    Raises:
      ValueError: parts of a tensor are missing or duplicated.
    """
    table = compiled(renames)
    places: dict[str, dict[int, str]] = {}
    counts: dict[str, int] = {}
    for name in source:
        match, rule = first_match(table, name)
        target, part = (match.expand(rule.target), rule.part) if match else (name, 0)
        other = places.setdefault(target, {}).setdefault(part, name)
        if other != name:
            raise ValueError(f"{name!r} and {other!r} both stand for {target!r}")
        counts[target] = rule.parts if match else 1
    for target, names in places.items():
        if len(names) != counts[target]:
            raise ValueError(
                f"{target!r}: expected {counts[target]} parts, got {[*names.values()]}"
            )
    origins = {
        target: tuple(names[part] for part in sorted(names))
        for target, names in places.items()
    }
    tensors = {
        target: source[names[0]]
        if len(names) == 1
        else np.concatenate([source[name] for name in names])
        for target, names in origins.items()
    }
    return Renamed(tensors, origins)


def known(
    names: Iterable[str], renames: Sequence[Rename], rules: Sequence[NameRule]
) -> int:
    """Counts the names that the tables cover."""
    old, table = compiled(renames), compiled(rules)
    count = 0
    for name in names:
        match, rule = first_match(old, name)
        current = match.expand(rule.target) if match else name
        count += first_match(table, current)[0] is not None
    return count


def compiled(rules: Sequence[NameRule] | Sequence[Rename]) -> list:
    """Returns pairs of compiled regex and rule."""
    return [(re.compile(rule.source), rule) for rule in rules]


def by_pattern(errors: Sequence[str]) -> list[str]:
    """Merges errors that differ only in numbers, and returns at most _SHOWN lines."""
    groups: dict[str, list[str]] = {}
    for error in errors:
        groups.setdefault(re.sub(r"\d+", "*", error), []).append(error)
    lines = [
        found[0] if len(found) == 1 else f"{found[0]}, and {len(found) - 1} like it"
        for found in groups.values()
    ]
    if len(lines) > _SHOWN:
        rest = sum(map(len, [*groups.values()][_SHOWN:]))
        lines = [*lines[:_SHOWN], f"and {rest} others"]
    return lines


def first_match(table: list, name: str) -> tuple:
    """Returns match and rule of the first regex for a full name; (None, None) if none.

    Args:
      table: see `compiled`.
      name: name of a tensor.
    """
    for pattern, rule in table:
        match = pattern.fullmatch(name)
        if match:
            return match, rule
    return None, None


def _apply(
    match: re.Match[str],
    rule: NameRule,
    tensor: Any,
    target_shapes: Mapping[str, Sequence[int]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns tensors by target path, and messages by misfitting path."""
    filled, misfits = {}, {}
    for template, transform in rule.targets:
        path = match.expand(template)
        if path not in target_shapes:
            misfits[path] = f"target {path!r} does not exist"
            continue
        shape = tuple(target_shapes[path])
        value = transform(tensor, shape)
        if value.shape == shape:
            filled[path] = value
        else:
            misfits[path] = (
                f"{list(tensor.shape)} gives {list(value.shape)},"
                f" target {path!r} has {list(shape)}"
            )
    return filled, misfits
