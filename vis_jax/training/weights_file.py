"""Variables in the layout of a model hub: a folder with model.safetensors."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vis_jax.converters.files import open_safetensors
from vis_jax.converters.safetensors_file import Entry, write_safetensors
from vis_jax.metrics.disk import naming
from vis_jax.params import flatten, unflatten
from vis_jax.training.tree_check import Check

WEIGHTS_FILE = "model.safetensors"


Dtype = Literal["float32", "bfloat16"]


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
            tree = unflatten({name: _form(entry) for name, entry in entries.items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if check is not None:
            check(tree)
        return unflatten({name: np.array(x.read()) for name, x in entries.items()})


def write_weights(
    folder: str | os.PathLike, variables: dict[str, dict], dtype: Dtype = "float32"
) -> None:
    """Writes variables under their paths, such as params/backbone/stem/conv1/kernel.

    Args:
      folder: that exists.
      variables: collections by name.
      dtype: of parameters; bfloat16 rounds them, and the file is half as large. Other
        collections, such as the statistics of norms, are small and stay as they are.

    Raises:
      OSError: the file cannot be written, as on a full disk; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
    arrays = {name: np.asarray(value) for name, value in flatten(variables).items()}
    if dtype == "bfloat16":
        arrays |= {
            name: rounded(value)
            for name, value in arrays.items()
            if name.startswith("params/") and value.dtype == np.float32
        }
    with naming(path):
        write_safetensors(path, arrays)


def rounded(array: np.ndarray) -> np.ndarray:
    """The array in bfloat16, to the nearest value."""
    import ml_dtypes

    return array.astype(ml_dtypes.bfloat16)


def _form(entry: Entry) -> _Form:
    wide = entry.dtype == "bfloat16"
    return _Form(entry.shape, np.dtype(np.float32 if wide else entry.dtype))
