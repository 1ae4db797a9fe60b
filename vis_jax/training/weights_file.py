"""Variables in the layout of a model hub: a folder with model.safetensors."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vis_jax.converters.files import open_safetensors
from vis_jax.converters.narrow import Dtype, narrowed, wide_shapes, widened
from vis_jax.converters.safetensors_file import write_safetensors
from vis_jax.formats.disk import naming
from vis_jax.params import flatten, unflatten
from vis_jax.training.tree_check import Check

WEIGHTS_FILE = "model.safetensors"


class _Form(NamedTuple):
    """What an entry becomes in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_weights(
    folder: str | os.PathLike, check: Check | None = None
) -> dict[str, dict]:
    """Variables, in host memory.

    Args:
      folder: as `write_weights` leaves it.
      check: is called with what the header says before numbers are read.

    Raises:
      ValueError: the file is damaged; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
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
      folder: that exists.
      variables: collections by name.
      dtype: of parameters; see `narrowed`.

    Raises:
      OSError: the file cannot be written, as on a full disk; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
    arrays = {name: np.asarray(value) for name, value in flatten(variables).items()}
    with naming(path):
        write_safetensors(path, narrowed(arrays, dtype))
