"""Prints every field of a config with its value, its range and its meaning.

A star marks values that differ from the default. Any field can be set on the command
line with --config.SECTION.FIELD=VALUE, here and in the other commands.

examples:
  python -m vis_jax.main config --config configs/ifr_r50.py
  python -m vis_jax.main config --config configs/mask_track_rcnn_r50.py --section test
  python -m vis_jax.main config --workdir runs/shapes --section model.backbone
"""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from absl import flags

from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.settings import describe, fields_of

_WIDTH = 88  # columns


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        "workdir": "folder of a training run, whose config is printed",
        "section": "only this section, such as test or model.backbone",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prints the fields."""
    wanted, found = values.section or "", False
    for path, section, default in sections(read_config(values)):
        if not wanted or path == wanted or path.startswith(f"{wanted}."):
            found = True
            print(format_section(path, section, default), end="\n\n")
    if not found:
        raise ValueError(f"--section: expected a section of the config, got {wanted!r}")


def sections(
    settings: Any, path: str = "", default: Any = None
) -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, settings, default) of settings and all nested sections.

    The default of a section is that of the enclosing class; None if there is none or it
    is of another class.
    """
    yield path, settings, default
    for name, field in fields_of(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            usual = field.default if default is None else getattr(default, name)
            same = usual if type(usual) is type(value) else None
            yield from sections(value, f"{path}.{name}" if path else name, same)


def format_section(path: str, settings: Any, default: Any = None) -> str:
    """Formats the fields of one section, without nested sections.

    Args:
      path: path of the section in the config.
      settings: its values.
      default: settings of the same class; None: the defaults of the class.
    """
    title = (inspect.getdoc(type(settings)) or "").partition("\n")[0]
    named = title.startswith(f"`{path}`")  # the docstring begins with the path
    lines = [title.replace("`", "", 2) if named else f"{path or 'config'}: {title}"]
    comments = comments_of(type(settings))
    for name, field in fields_of(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            continue
        star, text = " ", describe(field)
        usual = field.default if default is None else getattr(default, name)
        if value != usual:
            star = "*"
            if usual is not dataclasses.MISSING:
                text += f"; default {usual!r}"
        lines.append(f"{star} {name} = {value!r}  ({text})")
        lines += textwrap.wrap(
            comments.get(name, ""), _WIDTH, initial_indent=" " * 6,
            subsequent_indent=" " * 6,
        )  # fmt: skip
    return "\n".join(lines)


def comments_of(kind: type) -> dict[str, str]:
    """Returns the comment of each field of a settings class and its bases.

    It is read from the source, after the field or in the lines directly above it.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _own_comments(base)
    return found


def _own_comments(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # created at run time: its bases have the source
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
        token.start[0]: (token.line.strip().startswith("#"), token.string[1:].strip())
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    found = {}
    for node in definition.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line, above = node.lineno - 1, list[str]()
            while comments.get(line, (False, ""))[0]:
                above.insert(0, comments[line][1])
                line -= 1
            behind = (
                [comments[node.end_lineno][1]] if node.end_lineno in comments else []
            )
            found[node.target.id] = " ".join([*above, *behind])
    return found
