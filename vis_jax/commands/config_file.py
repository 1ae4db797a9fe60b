"""Reads configs from Python files, or from the config.json of a run.

Every error, including one in the user's file, becomes a one-line ValueError.
"""

import json
import os
import runpy
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vis_jax.commands.config_names import find_recipe
from vis_jax.paths import absolute, check_regular
from vis_jax.settings import CONFIG_FILE

_UP = 2  # levels from the folder of a step to that of its run


def read_recipe(text: str) -> dict:
    """Reads the fields of a config file.

    Args:
      text: a Python file with `get_config()`, such as configs/ifr_shapes.py, or the
        name of a bundled one, such as ifr_shapes; a suffix :name=value,.. calls
        `get_config('name=value,..')`.

    Raises:
      ValueError: there is no such file, or it returns no config.
    """
    given, colon, argument = text.partition(":")
    path = os.fspath(find_recipe(given))
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise ValueError("expected a function get_config()")
        config = get_config(argument) if colon else get_config()
    except Exception as error:  # the user's own code
        raise ValueError(f"--config {given}{_place(error, path)}") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise ValueError(f"--config {path}: expected a ConfigDict, got {got}")
    return config.to_dict()


def read_saved(path: epath.PathLike) -> dict:
    """Reads the config.json of a run.

    Raises:
      ValueError: it cannot be read, or is not a JSON object; names it.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        got = type(content).__name__
        raise ValueError(f"{path}: expected a JSON object, got {got}")
    with naming_place(os.fspath(path)):
        try:
            return ConfigDict(content).to_dict()
        except RecursionError as error:
            raise ValueError("expected settings, got too deep a nesting") from error


def saved_in(folder: epath.PathLike) -> epath.Path:
    """Returns the path of a run's config."""
    return epath.Path(folder) / CONFIG_FILE


def find_around(folder: epath.PathLike, name: str) -> epath.Path | None:
    """Returns the path of a file in a model's folder or the run around it, if any."""
    inner = absolute(folder)
    for place in (inner, *[*inner.parents][:_UP]):
        if (place / name).is_file():
            return place / name
    return None


def set_field(recipe: dict, path: str, value: Any) -> None:
    """Sets a field of a config by its path, such as test.tracker.

    Args:
      recipe: nested fields, modified in place. Missing sections are created.
      path: path of the field.
      value: new value; for a section, its fields to change.

    Raises:
      ValueError: the path goes through a field that is not a section.
    """
    *parents, name = path.split(".")
    node = recipe
    for depth, part in enumerate(parents, 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            place = ".".join(parents[:depth])
            raise ValueError(f"{place}: expected fields and values, got {node!r}")
    if isinstance(value, Mapping) and isinstance(node.get(name), dict):
        for inner, one in value.items():
            set_field(recipe, f"{path}.{inner}", one)
        return
    node[name] = value


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      ValueError: it is missing or damaged; names it.
    """
    check_regular(path)
    try:
        return json.loads(epath.Path(path).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a JSON file, got none") from error
    except RecursionError as error:
        raise ValueError(f"{path}: expected JSON, got too deep a nesting") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error


@contextmanager
def naming_place(place: str) -> Iterator[None]:
    """Prefixes errors with the location of the config."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _place(error: Exception, path: str) -> str:
    """Formats the location and error, as ", line 3: NameError: .."."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}: {error.msg}"
    if isinstance(error, ValueError):  # its message is self-explanatory
        return f": {error}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f", line {frame.lineno}" for frame in frames if frame.filename == path]
    return f"{(lines or [''])[-1]}: {type(error).__name__}: {error}"
