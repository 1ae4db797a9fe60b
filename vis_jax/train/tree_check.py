"""Whether two trees hold the same parameters, and which they do not share."""

from typing import Any

from vis_jax.params import flatten

SHOWN = 5  # paths per kind of difference


def check_same_tree(found: dict, expected: dict, *, name: str) -> None:
    """Compares paths, shapes and dtypes; leaves need a `shape` and a `dtype`.

    Args:
      found: what was read.
      expected: what the model holds.
      name: of the thing that was read, for the message.

    Raises:
      ValueError: with the first paths that are missing, unknown or misshapen.
    """
    found, expected = flatten(found), flatten(expected)
    both = sorted(found.keys() & expected.keys())
    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "different": [
            f"{path} (expected {_form(expected[path])}, got {_form(found[path])})"
            for path in both
            if _form(expected[path]) != _form(found[path])
        ],
    }
    lines = [_line(kind, paths) for kind, paths in differences.items() if paths]
    if lines:
        raise ValueError(f"{name} does not fit the model\n" + "\n".join(lines))


def _form(leaf: Any) -> str:
    shape = ", ".join(str(length) for length in leaf.shape)
    return f"{leaf.dtype}[{shape}]"


def _line(kind: str, paths: list[str]) -> str:
    more = ", .." if len(paths) > SHOWN else ""
    return f"  {len(paths)} {kind}: {', '.join(paths[:SHOWN])}{more}"
