"""Rows of `compare` that differ in one setting of `test`."""

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from vis_jax.commands.config_flag import literal
from vis_jax.settings import read_settings

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings

# Fields that select the videos, which all rows share.
_OF_DATA = ("split", "videos")


class VariedConfig(NamedTuple):
    """A config with another value of one setting."""

    name: str  # name of the row, such as "short_side=96"
    config: "RunSettings"


def variants(config: "RunSettings", given: list[str]) -> list[VariedConfig]:
    """Returns the configs of `--vary`, in order.

    Args:
      config: config of the run.
      given: texts "test.FIELD=VALUE,VALUE,..", optionally prefixed with "config.". A
        tuple is one value: "test.tta=(64,96),()".

    Raises:
      ValueError: a text has another form, or a value is invalid.
    """
    found: dict[str, VariedConfig] = {}
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
            found[name] = VariedConfig(name, dataclasses.replace(config, test=test))
    return list(found.values())


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets, and strips spaces."""
    return [part.replace(" ", "") for part in re.split(r",(?![^(]*\))", text)]


def _nested(path: list[str], value: Any) -> Any:
    """Returns {"a": {"b": value}} for the path a, b."""
    for part in reversed(path):
        value = {part: value}
    return value
