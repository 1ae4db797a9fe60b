"""Converts gradients of our parameters to gradients of the official ones."""

import re

import numpy as np

from tests.golden.cases import Case
from vis_jax.converters.load import convert_tensors
from vis_jax.params import flatten


def official_gradients(
    case: Case, variables: dict, gradients: dict, kind: str = "mask2former"
) -> dict[str, np.ndarray]:
    """Computes the 'grad/<official name>' arrays from gradients of our variables.

    The converter only moves numbers, so converting positions instead of weights locates
    the gradient of each official entry. In a layer with queries, keys and values
    together, '<official name>.q', '.k' and '.v' are a third of the rows each.
    """
    stored = [n.removeprefix("grad/") for n in case.arrays if n.startswith("grad/")]
    names = sorted({_whole(name) for name in stored})
    weights = {name: np.zeros_like(x) for name, x in case.weights().items()}
    for name in names:
        shape = weights[name].shape
        # Exact in float32: the largest parameter has fewer than 2^24 entries.
        weights[name] = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(
            shape
        )
    positions, report = convert_tensors(weights, variables, kind)
    positions, gradients = flatten(positions), flatten(gradients)
    found = {}
    for name in names:
        flat = np.zeros(weights[name].size, np.float32)
        for path in report.used[name]:
            index = np.asarray(positions[path]).astype(np.int64).ravel() - 1
            flat[index] = np.asarray(gradients[path]).ravel()
        found[name] = flat.reshape(weights[name].shape)
    return {f"grad/{name}": _part(found[_whole(name)], name) for name in stored}


def _whole(name: str) -> str:
    """Removes the suffix of a third from the name of a parameter."""
    return re.sub(r"\.[qkv]$", "", name)


def _part(gradient: np.ndarray, name: str) -> np.ndarray:
    if _whole(name) == name:
        return gradient
    return np.split(gradient, 3)["qkv".index(name[-1])]
