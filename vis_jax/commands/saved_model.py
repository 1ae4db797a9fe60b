"""Reads and writes model folders: runs, checkpoints, output of `convert`, model hub.

A model-hub folder has config.json, categories.json and model.safetensors.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath

from data_pipeline.errors import is_name
from vis_jax.commands import parts
from vis_jax.commands.config_file import (
    find_around,
    naming_place,
    read_recipe,
    read_saved,
    set_field,
)
from vis_jax.settings import CONFIG_FILE

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.systems.system import System


class SavedModel(NamedTuple):
    """A model with its config, classes and variables."""

    config: "RunSettings"
    categories: tuple[tuple[int, str], ...]  # (category id, name) of labels 0, 1, ..
    system: "System"
    variables: dict  # NumPy arrays


def read_model(
    path: epath.PathLike,
    fields: Mapping[str, Any],
    *,
    config: str | os.PathLike | Mapping | None = None,
    categories: str | os.PathLike | Sequence[str] | None = None,
) -> SavedModel:
    """Reads a model.

    Args:
      path: folder of a run, of one of its checkpoints, of the output of `convert`, or
        in model-hub layout.
      fields: config overrides by path, such as test.tracker.
      config: see `read_settings_of`; None: the one in the folder or its parents.
      categories: an annotation file with the classes, or their names in order; None:
        those in the folder or its parents.

    Raises:
      ValueError: a part is missing, damaged, or does not fit the rest.
    """
    folder = epath.Path(path)
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise ValueError(
            f"{path}: expected the folder of a run, of a checkpoint or in the layout of"
            f" a model hub, got {got}"
        )
    if config is None:
        config = _around(folder, CONFIG_FILE, "config", "'configs/ifr_r50.py'")
    settings = read_settings_of(config, fields)
    if categories is None:
        text = "an annotation file, or names"
        home = _around(folder, parts.CATEGORIES_FILE, "categories", text).parent
        classes = tuple(parts.read_categories(home))
    else:
        classes = _given_classes(categories)
    return make_model(settings, classes, os.fspath(path))


def make_model(
    config: "RunSettings", categories: Sequence[tuple[int, str]], checkpoint: str
) -> SavedModel:
    """Makes the model of a config with the variables of a checkpoint.

    Args:
      config: may leave the number of classes open.
      categories: (category id, name) of labels 0, 1, ..
      checkpoint: see `vis_jax.training.checkpoint.load_variables`.

    Raises:
      ValueError: there is no checkpoint, or one of the three does not fit the others.
    """
    from vis_jax.commands.run_settings import with_classes

    config = with_classes(config, len(categories))
    system = parts.build_system(config)
    variables = parts.load_model(system, checkpoint)
    return SavedModel(config, tuple(categories), system, variables)


def read_settings_of(
    config: str | os.PathLike | Mapping, fields: Mapping[str, Any]
) -> "RunSettings":
    """Reads the settings of a config, with overrides.

    Args:
      config: a Python file as for --config, the config.json of a run, or fields.
      fields: values by path, such as test.tracker, or whole sections by path.

    Raises:
      ValueError: there is no such config, or a field is unknown, missing or out of
        range.
    """
    from vis_jax.commands.run_settings import read_run

    if isinstance(config, Mapping):
        place, recipe = "config", _copied(config)
    elif os.fspath(config).endswith(".json"):
        place, recipe = os.fspath(config), read_saved(config)
        if "model_type" in recipe:
            raise ValueError(
                f"{place}: expected the config of a vis_jax run, got that of a Hugging"
                " Face model; `vis-jax convert --kind huggingface` makes a run of it"
            )
    else:
        place, recipe = f"--config {os.fspath(config)}", read_recipe(os.fspath(config))
    with naming_place(place):
        read_run(recipe)  # errors raised here are not due to `fields`
    for name, value in fields.items():
        set_field(recipe, name, value)
    return read_run(recipe)


def write_model(folder: str | os.PathLike, model: SavedModel) -> None:
    """Writes a model in model-hub layout, atomically.

    Args:
      folder: new folder on a local disk; created with its parents.
      model: model to write.

    Raises:
      ValueError: the folder exists.
      OSError: a file cannot be written, e.g. the disk is full; names the file.
    """
    from vis_jax.training.weights_file import write_weights

    output = Path(folder)
    if output.exists():
        raise ValueError(f"{folder}: expected a new folder, got one that exists")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = epath.Path(output.with_name(f".{output.name}.partial-{os.getpid()}"))
    try:
        temporary.mkdir()
        write_weights(temporary, model.variables)
        write_description(temporary, model)
        temporary.rename(output)
    finally:
        if temporary.exists():
            temporary.rmtree()


def write_description(folder: str | os.PathLike, model: SavedModel) -> None:
    """Writes config.json and categories.json of a model into a folder.

    Paths of its data and initial weights are omitted from the config.
    """
    from data_pipeline.datasets.dataset import Category
    from vis_jax.training.run_config import write_config

    config = dataclasses.replace(
        model.config,
        init_from="",
        init_fresh=(),
        data=dataclasses.replace(model.config.data, root=""),
    )
    categories = [Category(number, name) for number, name in model.categories]
    parts.write_categories(folder, categories)
    write_config(config, os.fspath(folder))


def _around(folder: epath.Path, name: str, argument: str, example: str) -> epath.Path:
    """Finds a file by name in a folder or its parents."""
    path = find_around(folder, name)
    if path is not None:
        return path
    raise ValueError(
        f"{os.fspath(folder)}: expected {name} in it or in the run around it, got none;"
        f" give {argument}=, such as {example}"
    )


def _given_classes(
    categories: str | os.PathLike | Sequence[str],
) -> tuple[tuple[int, str], ...]:
    """Returns the classes of an annotation file, or names with ids 1, 2, .."""
    if isinstance(categories, str | os.PathLike):
        found = parts.annotated_categories(os.fspath(categories))
        return tuple((one.category_id, one.name) for one in found)
    names = tuple(categories)
    if not names or not all(map(is_name, names)) or len(set(names)) < len(names):
        expected = "names on one line, each once"
        raise ValueError(f"categories: expected {expected}, got {names!r:.99}")
    return tuple(enumerate(names, start=1))


def _copied(fields: Mapping) -> dict:
    """Copies nested fields, so that they can be modified."""
    return {
        name: _copied(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }
