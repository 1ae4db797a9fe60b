"""--config: a config from a file or a training run, with fields set by --config.a.b=v.

Everything wrong with it is a ValueError in one line, also in the user's own file.
"""

import json
import runpy
import traceback

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

CONFIG_FILE = "config.json"
_TEXT = (
    "Python file with get_config(), such as configs/ifr_shapes.py, or the same with"
    " :name=value,.. behind it for get_config('name=value,..'); --config.a.b=v sets"
    " a field"
)


def define_config(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds --config: a Python file, or by default the config of --workdir.

    Raises:
      ValueError: there is no such config, it cannot be read, or it has not all fields
        that are set.
    """
    given = _argument(arguments, "config")
    if given is None and (saved := _saved_config(arguments)) is not None:
        _check_fields(saved, arguments)
        config_flags.DEFINE_config_dict(
            "config", saved, _TEXT, flag_values=values, sys_argv=arguments
        )
        return
    if given is not None:  # read here first, for errors that a user can understand
        _check_fields(_load(given), arguments)
    config_flags.DEFINE_config_file(
        "config", None, _TEXT, flag_values=values, sys_argv=arguments
    )


def read_config(values: flags.FlagValues) -> ConfigDict:
    """The config of the command line.

    Raises:
      ValueError: neither --config nor a workdir with a config was given.
    """
    if values.config is not None:
        return values.config
    expected = "expected a file such as configs/ifr_shapes.py"
    if not values.workdir:
        raise ValueError(f"--config: {expected}, got none")
    there = "no such file" if epath.Path(values.workdir).is_dir() else "no such folder"
    raise ValueError(
        f"--config: {expected}, or a --workdir with {CONFIG_FILE};"
        f" got {values.workdir}: {there}"
    )


def read_json(path: epath.PathLike):
    """The content of a JSON file.

    Raises:
      ValueError: it is missing or cut; names it.
    """
    try:
        return json.loads(epath.Path(path).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a JSON file, got none") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error


def _load(text: str) -> ConfigDict:
    """The config of `file.py:argument`."""
    path, colon, argument = text.partition(":")
    if not epath.Path(path).is_file():
        raise ValueError(f"--config: expected a Python file, got {path}: no such file")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise ValueError("expected a function get_config()")
        config = get_config(argument) if colon else get_config()
    except Exception as error:  # the user's own code
        raise ValueError(f"--config {path}{_place(error, path)}") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise ValueError(f"--config {path}: expected a ConfigDict, got {got}")
    return config


def _place(error: Exception, path: str) -> str:
    """Where in the file, and what: `, line 3: NameError: ..`."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}: {error.msg}"
    if isinstance(error, ValueError):  # says by itself what was expected
        return f": {error}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f", line {frame.lineno}" for frame in frames if frame.filename == path]
    return f"{(lines or [''])[-1]}: {type(error).__name__}: {error}"


def _check_fields(config: ConfigDict, arguments: list[str]) -> None:
    """Raises ValueError unless the config has every field that is set."""
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


def _saved_config(arguments: list[str]) -> ConfigDict | None:
    """The config that a training run left in --workdir, if there is one."""
    workdir = _argument(arguments, "workdir")
    if workdir is None or not (epath.Path(workdir) / CONFIG_FILE).is_file():
        return None
    path = epath.Path(workdir) / CONFIG_FILE
    content = read_json(path)
    if not isinstance(content, dict):
        got = type(content).__name__
        raise ValueError(f"{path}: expected a JSON object, got {got}")
    return ConfigDict(_tuples(content))


def _argument(arguments: list[str], name: str) -> str | None:
    """The last value that the command line has for a flag."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        head, sign, value = argument.partition("=")
        if head in (f"--{name}", f"-{name}"):
            found = value if sign else following
    return found


def _tuples(value):
    """JSON has no tuples; configs use them for every sequence."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
