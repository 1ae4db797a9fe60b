"""Reads and writes variables in model-hub layout: a folder with model.safetensors."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vis_jax.converters.files import open_safetensors
from vis_jax.converters.narrow import Dtype, narrowed, wide_shapes, widened
from vis_jax.converters.safetensors_file import write_safetensors
from vis_jax.formats.disk import naming
from vis_jax.params import flatten, unflatten
from vis_jax.paths import read_locally
from vis_jax.training.tree_check import Check

WEIGHTS_FILE = "model.safetensors"


class _Form(NamedTuple):
    """Shape and dtype of an entry in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_weights(
    folder: str | os.PathLike, check: Check | None = None
) -> dict[str, dict]:
    """Reads variables into host memory.

    Args:
      folder: as written by `write_weights`, on a disk or in a bucket.
      check: called with the header before values are read.

    Raises:
      ValueError: the file is damaged; names it.
    """
    with read_locally(folder, file=WEIGHTS_FILE) as local:
        return _read(local / WEIGHTS_FILE, check)


def _read(path: Path, check: Check | None) -> dict[str, dict]:
    with open_safetensors(path) as entries:
        try:
            shapes = wide_shapes(entries)
            tree = unflatten({name: _Form(*form) for name, form in shapes.items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if check is not None:
            check(tree)
        arrays = {name: np.array(entry.read()) for name, entry in entries.items()}
        return unflatten(widened(arrays))


def write_weights(
    folder: str | os.PathLike, variables: dict[str, dict], dtype: Dtype = "float32"
) -> None:
    """Writes variables under their paths, such as params/backbone/stem/conv1/kernel.

    Args:
      folder: existing folder.
      variables: collections by name.
      dtype: dtype of parameters; see `narrowed`.

    Raises:
      OSError: the file cannot be written, e.g. the disk is full; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
    arrays = {name: np.asarray(value) for name, value in flatten(variables).items()}
    with naming(path):
        write_safetensors(path, narrowed(arrays, dtype))
