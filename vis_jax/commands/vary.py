"""Rows of `compare` that differ in one setting of `test`."""

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from vis_jax.commands.config_flag import literal
from vis_jax.settings import read_settings

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings

# They choose the videos, which all rows share.
_OF_DATA = ("split", "videos")


class Variant(NamedTuple):
    """A config with another value of one setting."""

    name: str  # as the row is called: "short_side=96"
    config: "RunSettings"


def variants(config: "RunSettings", given: list[str]) -> list[Variant]:
    """The configs that `--vary` asks for, in order.

    Args:
      config: of the run.
      given: texts "test.FIELD=VALUE,VALUE,..", with "config." before them or not. A
        tuple is one value: "test.tta=(64,96),()".

    Raises:
      ValueError: a text is not like that, or a value cannot be.
    """
    found: dict[str, Variant] = {}
    for text in given:
        path, _, values = text.partition("=")
        field = path.removeprefix("config.").removeprefix("test.")
        if not path.removeprefix("config.").startswith("test.") or not values:
            raise ValueError(f"--vary: expected test.FIELD=VALUE,VALUE,.., got {text}")
        if field in _OF_DATA:
            raise ValueError(
                f"--vary: expected a setting that all videos can have, got {path}"
            )
        for value in _split(values):
            test = read_settings(
                type(config.test),
                _nested(field.split("."), literal(value)),
                "test",
                base=config.test,
            )
            name = f"{field}={value}"
            found[name] = Variant(name, dataclasses.replace(config, test=test))
    return list(found.values())


def _split(text: str) -> list[str]:
    """At commas that are not in brackets, without spaces."""
    return [part.replace(" ", "") for part in re.split(r",(?![^(]*\))", text)]


def _nested(path: list[str], value: Any) -> Any:
    """{"a": {"b": value}} of the path a, b."""
    for part in reversed(path):
        value = {part: value}
    return value
