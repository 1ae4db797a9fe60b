"""--config: a config from a file or a run, with overrides --config.a.b=v.

Every error is a one-line ValueError.
"""

import ast
import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from vis_jax.checkpoints import find_weights
from vis_jax.commands.config_file import (
    find_around,
    naming_place,
    read_recipe,
    read_saved,
    saved_in,
    set_field,
)
from vis_jax.settings import CONFIG_FILE, SettingField, fields_of, union_of

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings

_TEXT = (
    "Python file with get_config(), such as configs/ifr_shapes.py, or the name of a"
    " recipe, such as ifr_shapes (`configs list`); a suffix :name=value,.. calls"
    " get_config('name=value,..'); --config.a.b=v sets a field"
)


def define_config(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds --config: a Python file, or by default the config of the model.

    That is the one in --workdir or, without --workdir, around --checkpoint.

    The config is read here and completed with defaults, so that a flag can set each of
    its fields; the words of `arguments` that name it are removed.

    Raises:
      ValueError: there is no such config, it cannot be read, or a field is unknown,
        missing or out of range.
    """
    given, saved = _take(arguments, "config"), _saved(arguments)
    if given is not None:
        place, recipe = f"--config {given}", read_recipe(given)
    elif saved is not None:
        place, recipe = os.fspath(saved), read_saved(saved)
    else:
        flags.DEFINE_string("config", None, _TEXT, flag_values=values)
        return
    from vis_jax.commands.run_settings import read_run  # slow, as it imports JAX

    with naming_place(place):
        recipe = _with_choices(recipe, arguments)
        run = read_run(recipe)
    run = read_run(_with_optional(recipe, run, arguments))
    config = ConfigDict(_as_fields(run))
    _check_fields(config, arguments)
    config_flags.DEFINE_config_dict(
        "config", config, _TEXT, flag_values=values, sys_argv=arguments
    )


def read_config(values: flags.FlagValues) -> "RunSettings":
    """Returns the settings of the command line.

    Raises:
      ValueError: neither --config nor a workdir with a config was given, or a field has
        an invalid value.
    """
    if values.config is not None:
        from vis_jax.commands.run_settings import read_run

        return read_run(values.config.to_dict())
    expected = "expected a file such as configs/ifr_shapes.py"
    flag = "workdir" if values.workdir or "checkpoint" not in values else "checkpoint"
    folder = values[flag].value
    if not folder:
        raise ValueError(f"--config: {expected}, got none")
    why = "no such file" if epath.Path(folder).is_dir() else "no such folder"
    raise ValueError(
        f"--config: {expected}, or a --{flag} with {CONFIG_FILE}; got {folder}: {why}"
    )


def _check_fields(config: ConfigDict, arguments: list[str]) -> None:
    """Raises ValueError if the command line sets an unknown field."""
    for argument in arguments:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no")
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        node, path = config, name.split(".")[1:]
        for part in path:
            known = sorted(node) if isinstance(node, ConfigDict) else None
            if known is None or part not in known:
                raise ValueError(
                    f"--{name}: the config has no such field; expected"
                    f" {f'one of {known}' if known else 'nothing'} in place of {part!r}"
                )
            node = node[part]


def _with_choices(recipe: dict, arguments: list[str]) -> dict:
    """Applies `name`, `kind` and `variant` of parts from the command line to a recipe.

    They determine which other fields and values exist, so they must be known before the
    recipe is read.
    """
    for argument in arguments:
        head = argument.partition("=")[0]
        path = head.lstrip("-").split(".")
        if path[0] != "config" or path[-1] not in ("name", "kind", "variant"):
            continue
        value = _argument(arguments, ".".join(path))
        set_field(recipe, ".".join(path[1:]), value)
    return recipe


def _with_optional(recipe: dict, run: Any, arguments: list[str]) -> dict:
    """Applies fields with several types from the command line to a recipe.

    A flag keeps the type of its default, so it could not turn a number into None or a
    tuple. These words are removed from `arguments`.

    Args:
      recipe: recipe that `run` was read from.
      run: settings that define the types.
      arguments: command line.
    """
    for argument in list(arguments):
        path = argument.partition("=")[0].lstrip("-").split(".")
        field = _field_at(run, path[1:]) if path[0] == "config" else None
        if field is None or union_of(field.type) or not _several(field.type):
            continue
        text = _take(arguments, ".".join(path))
        if text is not None:  # else already removed: the last one counts
            set_field(recipe, ".".join(path[1:]), literal(text))
    return recipe


def _field_at(settings: Any, path: list[str]) -> SettingField | None:
    """Returns the field at a path, or None."""
    for part in path[:-1]:
        settings = getattr(settings, part, None)
    if not path or not dataclasses.is_dataclass(settings):
        return None
    return fields_of(type(settings)).get(path[-1])


def _several(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


def literal(text: str) -> Any:
    """Parses None, a number or a tuple as in Python; returns other text as is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _as_fields(value: Any) -> Any:
    """Converts settings to nested fields that flags can set."""
    if isinstance(value, Mapping):
        return {name: _as_fields(item) for name, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    return {name: _as_fields(getattr(value, name)) for name in fields_of(type(value))}


def _saved(arguments: list[str]) -> epath.Path | None:
    """Returns the config in --workdir or, without it, around --checkpoint, if any."""
    workdir = _argument(arguments, "workdir")
    if workdir:
        path = saved_in(workdir)
        return path if path.is_file() else None
    checkpoint = _argument(arguments, "checkpoint")
    return find_around(find_weights(checkpoint), CONFIG_FILE) if checkpoint else None


def _take(arguments: list[str], name: str) -> str | None:
    """Removes a flag from the command line; returns its last value."""
    found, rest, words = None, [], iter(arguments)
    for word in words:
        head, sign, value = word.partition("=")
        if head in (f"--{name}", f"-{name}"):
            found = value if sign else next(words, None)
        else:
            rest.append(word)
    arguments[:] = rest
    return found


def _argument(arguments: list[str], name: str) -> str | None:
    """Returns the last value of a flag on the command line."""
    return _take(list(arguments), name)
