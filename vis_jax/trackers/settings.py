"""From a part of a config to the settings of a tracker, a NamedTuple."""

import math
from collections.abc import Mapping
from typing import TypeVar

from ml_collections import ConfigDict

Settings = TypeVar("Settings")

# A whole number does where the setting is a real one.
_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
}


def read_settings(
    where: str, kind: type[Settings], values: Mapping | ConfigDict
) -> Settings:
    """The settings with these values, all of which have to be given.

    Args:
      where: of the values in the config, such as "test.trackers.iou".
      kind: a NamedTuple; fields that are bool, int, float or str are checked.
      values: by field.

    Raises:
      ValueError: a field is missing, unknown, of another type, or a number below 0.
    """
    fields = kind.__annotations__
    for name in (*values, *fields):
        if name not in fields:
            raise ValueError(
                f"{where}.{name}: expected one of {sorted(fields)}, got an unknown name"
            )
        if name not in values:
            raise ValueError(
                f"{where}.{name}: expected a value, got only {sorted(values)}"
            )
        _check_type(f"{where}.{name}", fields[name], values[name])
    real = {name: float(values[name]) for name in fields if fields[name] is float}
    return kind(**{**values, **real})


def _check_type(where: str, expected: type, value: object) -> None:
    accepted = _ACCEPTED.get(expected)
    if accepted is None:
        return
    # To Python a truth value is a whole number.
    stray = isinstance(value, bool) and expected is not bool
    if stray or not isinstance(value, accepted):
        raise ValueError(f"{where}: expected {expected.__name__}, got {value!r}")
    if isinstance(value, int | float) and not 0 <= value < math.inf:
        raise ValueError(f"{where}: expected a number of at least 0, got {value}")
