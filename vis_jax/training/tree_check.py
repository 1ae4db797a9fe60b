"""Compares the parameters of two trees."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from vis_jax.params import flatten

SHOWN = 5  # paths per kind of difference


@runtime_checkable
class Check(Protocol):
    """Checks variables before their values are read."""

    def __call__(self, found: dict, /) -> None:
        """Raises ValueError if the variables must not be read.

        Args:
          found: collections by name, whose leaves have a `shape` and a `dtype`.
        """
        ...


class MismatchError(ValueError):
    """Two trees have different parameters.

    Attributes:
      paths: paths of the parameters that differ.
    """

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths


def check_same_tree(found: dict, expected: dict, *, name: str) -> None:
    """Compares paths, shapes and dtypes; leaves need a `shape` and a `dtype`.

    Args:
      found: tree that was read.
      expected: tree of the model.
      name: name of the source, for the message.

    Raises:
      MismatchError: lists the first paths that are missing, unknown or misshapen.
    """
    found, expected = flatten(found), flatten(expected)
    both = sorted(found.keys() & expected.keys())
    misshapen = [path for path in both if _form(expected[path]) != _form(found[path])]
    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "different": [
            f"{path} (expected {_form(expected[path])}, got {_form(found[path])})"
            for path in misshapen
        ],
    }
    lines = [_line(kind, paths) for kind, paths in differences.items() if paths]
    if lines:
        paths = (*differences["missing"], *differences["unknown"], *misshapen)
        text = f"{name} does not fit the model: {'; '.join(lines)}"
        raise MismatchError(text, paths)


def check_finite(variables: dict, *, name: str) -> None:
    """Checks that all numbers are finite, as a run stops before it saves others.

    Args:
      variables: collections of arrays.
      name: name of the source, for the message.

    Raises:
      ValueError: names the first variable that has NaN or an infinity.
    """
    for path, array in flatten(variables).items():
        if not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{name}: {path}: expected finite numbers, got NaN or inf")


def _form(leaf: Any) -> str:
    shape = ", ".join(str(length) for length in leaf.shape)
    return f"{leaf.dtype}[{shape}]"


def _line(kind: str, paths: list[str]) -> str:
    more = ", .." if len(paths) > SHOWN else ""
    return f"{len(paths)} {kind}: {', '.join(paths[:SHOWN])}{more}"
