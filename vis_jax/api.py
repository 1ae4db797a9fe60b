"""Python API: models that track objects in videos, and training.

Defines the public names of `vis_jax`, except `score`, which comes from
`vis_jax.scoring` and needs no JAX.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

from vis_jax.commands.config_file import saved_in
from vis_jax.commands.run_settings import RunSettings
from vis_jax.commands.saved_model import (
    SavedModel,
    read_settings_of,
    write_model,
)
from vis_jax.commands.train import train_config
from vis_jax.evaluate.infer import make_stream
from vis_jax.main import quieten
from vis_jax.paths import check_folder
from vis_jax.predict.loop import Finder
from vis_jax.results.frame import Stream
from vis_jax.tracking import Tracker


def train(
    config: str | os.PathLike | Mapping | None,
    workdir: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    accept_changes: bool = False,
) -> None:
    """Trains a system and evaluates it at the end; called again, it resumes.

    Runs the same loop as the command `train`: progress is printed, SIGINT and SIGTERM
    save the state and end the process.

    Args:
      config: a recipe by name, such as "ifr_shapes:steps=500", a Python file, a
        config.json, or fields by name; None: the config of the run to resume.
      workdir: folder of the run, for `load`.
      settings: overrides by path, such as {"data.root": "/data/videos"}.
      accept_changes: resume although settings differ from those of the run.

    Raises:
      ValueError: a setting is unknown or out of range, or the data or the run do not
        fit. The message is one line with the expected and the actual value.
    """
    quieten()
    check_folder("workdir", workdir)
    run = read_settings_of(config or saved_in(workdir), settings or {})
    train_config(run, os.fspath(workdir), accept_changes=accept_changes)


class Model(Tracker):
    """A trained system that tracks objects in videos, as returned by `load`.

    Args:
      saved: the model to run.
    """

    def __init__(self, saved: SavedModel) -> None:
        self._saved = saved

    @property
    def config(self) -> RunSettings:
        """All settings."""
        return self._saved.config

    @property
    def names(self) -> list[str]:
        """Class names, by label."""
        return [name for _, name in self._saved.categories]

    def save_hub(self, folder: str | os.PathLike) -> None:
        """Writes the model in model-hub layout, readable by `load`.

        Args:
          folder: must not exist; receives config.json, categories.json and
            model.safetensors.

        Raises:
          ValueError: the folder exists.
          OSError: a file cannot be written, e.g. the disk is full; names the file.
        """
        write_model(folder, self._saved)

    def _finder(self) -> Finder:
        saved = self._saved
        whole = saved.system.window.length is None
        return Finder(self._stream, saved.categories, self.config.test.top, whole)

    @functools.cached_property
    def _stream(self) -> Stream:
        saved = self._saved
        return make_stream(saved.system, saved.variables, saved.config.test)

    def __repr__(self) -> str:
        return f"Model(system={self.config.system!r}, {len(self.names)} classes)"
