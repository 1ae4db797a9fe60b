"""Variables in the layout of a model hub: a folder with model.safetensors."""

import os
from pathlib import Path

import numpy as np

from vis_jax.converters.files import read_source
from vis_jax.converters.safetensors_file import write_safetensors
from vis_jax.metrics.disk import naming
from vis_jax.params import flatten, unflatten

WEIGHTS_FILE = "model.safetensors"


def has_weights(folder: str | os.PathLike) -> bool:
    """Whether `read_weights` has something to read there."""
    return "://" not in str(folder) and (Path(folder) / WEIGHTS_FILE).exists()


def read_weights(folder: str | os.PathLike) -> dict[str, dict]:
    """Variables, in host memory.

    Args:
      folder: as `write_weights` leaves it.

    Raises:
      ValueError: the file is damaged; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
    tensors = read_source(path).tensors
    try:
        return unflatten({name: np.array(value) for name, value in tensors.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_weights(folder: str | os.PathLike, variables: dict[str, dict]) -> None:
    """Writes variables under their paths, such as params/backbone/stem/conv1/kernel.

    Args:
      folder: that exists.
      variables: collections by name.

    Raises:
      OSError: the file cannot be written, as on a full disk; names it.
    """
    path = Path(folder) / WEIGHTS_FILE
    arrays = {name: np.asarray(value) for name, value in flatten(variables).items()}
    with naming(path):
        write_safetensors(path, arrays)
