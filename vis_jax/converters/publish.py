"""Exports a model's variables under published names: the inverse of `convert`.

The tables are those of `converters.load`. The result is converted again and must equal
the model bit for bit.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from vis_jax.converters.backwards import OldNames, reverse_rules
from vis_jax.converters.load import (
    WHOLE,
    Kind,
    convert_tensors,
    flat_of,
    has_frame_decoder,
    table_of,
)
from vis_jax.converters.rules import (
    MisfitError,
    NameRule,
    by_pattern,
    compiled,
    first_match,
)


class Published(NamedTuple):
    """A model under published names.

    Attributes:
      tensors: by published name.
      left: paths of the model without a published name.
    """

    tensors: dict[str, np.ndarray]
    left: tuple[str, ...]


class _Place(NamedTuple):
    """A tensor of the file, and the model paths it consists of."""

    rule: NameRule
    paths: tuple[str, ...]  # one per target of the rule


def publish(variables: Mapping, kind: str) -> Published:
    """Returns a model's weights under the names of a kind of file.

    Args:
      variables: nested, collections first.
      kind: a key of `converters.load.KINDS`.

    Raises:
      ValueError: the kind has no name for a part of the model, or a part cannot be
        recovered from the file; names the part.
    """
    flat = flat_of(variables)
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    table = table_of(kind, shapes)
    _check_decoder(kind, shapes)
    places, left = _places(shapes, table)
    tensors: dict[str, np.ndarray] = {}
    names = OldNames(table.renames)
    for name, place in places.items():
        tensor = _tensor(name, place, flat)
        old = names.of(name)
        parts = [tensor] if len(old) == 1 else np.split(tensor, len(old))
        tensors |= {n: x.copy(order="C") for n, x in zip(old, parts, strict=True)}
    _check_back(tensors, variables, kind, left)
    return Published(tensors, left)


def _check_decoder(kind: str, shapes: Mapping[str, tuple]) -> None:
    if kind in WHOLE and has_frame_decoder(shapes):
        raise ValueError(
            f"layout {kind}: expected a model with the decoder of Mask2Former"
            " (model.mask_decoder.kind 'm2f_vis'), got IFR's, whose layers have no"
            " counterpart there"
        )


def _places(
    shapes: Mapping[str, tuple], table: Kind
) -> tuple[dict[str, _Place], tuple[str, ...]]:
    """Returns the model paths of each file tensor, and the paths left out.

    Raises:
      MisfitError: a path has no name, and conversion would not initialise it either.
    """
    rules = compiled(table.rules)
    ways = reverse_rules(table.rules)
    new = [re.compile(pattern) for pattern in table.new]
    places: dict[str, _Place] = {}
    left: list[str] = []
    errors: list[str] = []
    for path in shapes:
        for way in ways:
            fits = way.pattern.fullmatch(path)  # false for nearly all
            name = way.name(path) if fits else None
            if name is None:
                continue
            match, rule = first_match(rules, name)
            if rule is table.rules[way.place]:
                paths = tuple(match.expand(target) for target, _ in rule.targets)
                places[name] = _Place(rule, paths)
                break
        else:
            if any(pattern.fullmatch(path) for pattern in new):
                left.append(path)
            else:
                errors.append(f"{path!r}: has no place")
    errors += [
        f"{path!r}: the model lacks it, {name!r} needs it"
        for name, place in places.items()
        for path in place.paths
        if path not in shapes
    ]
    if errors:
        listing = "\n  ".join(by_pattern(errors))
        raise MisfitError(
            f"the model does not fit, {len(errors)} misfits:\n  {listing}"
        )
    return places, tuple(left)


def _tensor(name: str, place: _Place, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    """Builds a tensor of the file from the arrays of its targets.

    Raises:
      ValueError: targets that must be copies of one tensor differ.
    """
    found: dict[int, np.ndarray] = {}
    first: dict[int, str] = {}
    parts = 1
    for path, (_, transform) in zip(place.paths, place.rule.targets, strict=True):
        array = transform.back(np.asarray(flat[path]), _outputs(path, flat))
        part, parts = transform.part, transform.parts
        if part in found and not np.array_equal(found[part], array):
            raise ValueError(
                f"{name!r}: expected one tensor for {first[part]!r} and {path!r}, as in"
                " the file, got two that differ"
            )
        found.setdefault(part, array)
        first.setdefault(part, path)
    return np.concatenate([found[i] for i in range(parts)]) if parts > 1 else found[0]


def _outputs(path: str, flat: Mapping[str, np.ndarray]) -> int:
    """Returns the number of trailing output axes of an array: that of its bias."""
    module, _, leaf = path.rpartition("/")
    if leaf == "bias":
        return flat[path].ndim
    if leaf != "kernel":
        return 0
    bias = flat.get(f"{module}/bias")
    return 1 if bias is None else bias.ndim


def _check_back(
    tensors: Mapping[str, np.ndarray],
    variables: Mapping,
    kind: str,
    left: Iterable[str],
) -> None:
    """Raises ValueError unless conversion reproduces the model bit for bit."""
    found, report = convert_tensors(tensors, variables, kind)
    back, flat = flat_of(found), flat_of(variables)
    lost = [path for path in report.new if path not in set(left)]
    lost += [
        path
        for path, array in flat.items()
        if not _equal(np.asarray(array), np.asarray(back[path]))
    ]
    if lost:
        raise ValueError(
            f"layout {kind}: {len(lost)} arrays change when converted back, such as"
            f" {lost[0]!r}"
        )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether dtype, shape and values are equal; NaN equals NaN."""
    nan = np.issubdtype(a.dtype, np.inexact)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=nan)
