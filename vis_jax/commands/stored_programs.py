"""Runs models exported as programs.

Nothing here needs Flax, TensorFlow or the config of a run.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.converters.files import open_safetensors
from vis_jax.converters.narrow import rounded
from vis_jax.converters.safetensors_file import Entry
from vis_jax.evaluate.stream import Program, run_program
from vis_jax.export.manifest import canvases_of, read_manifest
from vis_jax.export.programs import StoredSystem, read_programs
from vis_jax.paths import read_locally
from vis_jax.results.frame import Stream
from vis_jax.training.weights_file import WEIGHTS_FILE


class StoredModel(NamedTuple):
    """A model exported as programs.

    Attributes:
      system: name of the system.
      stream: runs it on videos.
      categories: (category id, name) of labels 0, 1, ..
      top: maximum number of tracks per video.
      whole: whether it reads the whole video before the first result.
    """

    system: str
    stream: Stream
    categories: tuple[tuple[int, str], ...]
    top: int
    whole: bool


def read_stored(path: str | os.PathLike) -> StoredModel:
    """Reads the output of `export --format stablehlo`, on a disk or in a bucket.

    Raises:
      ValueError: a file is missing or damaged, or does not fit the others; names it.
    """
    with read_locally(path) as folder:
        return _read(folder)


def _read(folder: Path) -> StoredModel:
    manifest = read_manifest(folder)
    with open_safetensors(folder / WEIGHTS_FILE) as entries:
        programs = read_programs(folder, manifest, shapes_of(entries))
        variables = {name: _numbers(entry) for name, entry in entries.items()}
    stored = StoredSystem(programs, variables, manifest.batched)
    window = manifest.window_of()
    program = Program(
        stored.start,
        stored.step,
        window,
        manifest.render_of(),
        manifest.limit,
        canvases_of(programs),
    )
    return StoredModel(
        manifest.system,
        run_program(program, manifest.sizing),
        manifest.categories,
        manifest.top,
        whole=window.length is None,
    )


def shapes_of(entries: Mapping[str, Entry]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a file's variables, in the dtypes its programs take."""
    return {
        name: jax.ShapeDtypeStruct(entry.shape, jnp.dtype(entry.dtype))
        for name, entry in entries.items()
    }


def _numbers(entry: Entry) -> np.ndarray:
    """Reads an array in the dtype of the file."""
    values = np.array(entry.read())
    return rounded(values) if entry.dtype == "bfloat16" else values
