"""Settings: typed fields with defaults and ranges, and the one reader of a config.

A part of the library declares what can be set as a class with a commented field each:

    @section
    class Settings:
        '''What a training clip is.'''

        frames: Count = 2  # frames of a clip
        flip: Share = 0.5  # probability of a mirrored clip

`read_settings` builds it from a section of a config and names the field that is wrong.
A field is bool, int, float, str, a Literal, a tuple, an optional form of these, other
settings, or a union of settings that a Literal field, the tag, tells apart. Rules over
several fields go into `__post_init__`, in messages that begin with a field's name.

Needs the standard library alone, so that every package can use it.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    dataclass_transform,
)

T = TypeVar("T")

CONFIG_FILE = "config.json"  # in the folder of a run: all its settings


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """Makes a class of annotated fields immutable settings, built by keyword."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


class Range(NamedTuple):
    """Bounds of a number, or of each number in a tuple; None is unbounded."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            one = self.least == self.most
            return f"{self.least}" if one else f"{self.least} .. {self.most}"
        words = ("at least", "above", "at most", "below")
        numbers = (self.least, self.above, self.most, self.below)
        bounds = zip(words, numbers, strict=True)
        return " and ".join(f"{word} {x}" for word, x in bounds if x is not None)

    def holds(self, value: float) -> bool:
        """Returns whether the number lies within all bounds; NaN does not."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


class OneOf(NamedTuple):
    """Allowed values of a field of type str, such as the keys of a table."""

    choices: Collection[str]


Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Weight = Annotated[float, Range(least=0)]
Fraction = Annotated[float, Range(above=0, most=1)]
OpenFraction = Annotated[float, Range(above=0, below=1)]


class SettingField(NamedTuple):
    """One field of settings, as `fields_of` describes it."""

    name: str
    type: Any  # without Annotated
    rules: tuple[Range | OneOf, ...]
    default: Any  # dataclasses.MISSING if there is none


def fields_of(kind: type) -> dict[str, SettingField]:
    """Returns the fields of a settings class by name, base class fields first."""
    return _fields_of(kind)


@functools.cache  # mypy only knows its arguments as Hashable
def _fields_of(kind: Any) -> dict[str, SettingField]:
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = SettingField(field.name, *_bare(hints[field.name]), default)
    return found


def read_settings(
    kind: type[T], values: Mapping, where: str = "", *, base: T | None = None
) -> T:
    """Returns settings with these values; all others are defaults.

    Args:
      kind: a class made by `section`.
      values: by field, as in a config or JSON file: lists stand for tuples, integers
        for floats, mappings for nested settings.
      where: path of the section in the config, such as "test.trackers.iou".
      base: settings whose fields are kept where `values` has none, instead of defaults.

    Raises:
      ValueError: a field is unknown, missing, of another type or out of its range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected fields and values, got {values!r}")
    return _build(kind, values, where, base, "")


def _build(kind: type[T], values: Mapping, where: str, base: Any, tag: str) -> T:
    """Implements `read_settings`; `tag` says which member of a union this is."""
    known, found = fields_of(kind), {}
    for name in values:
        if name not in known:
            raise ValueError(f"{_join(where, name)}: {_unknown(name, known, tag)}")
    for name, field in known.items():
        path = _join(where, name)
        before = getattr(base, name) if base is not None else field.default
        if name in values:
            found[name] = _read(path, field, values[name], before)
        elif before is dataclasses.MISSING:
            raise ValueError(f"{path}: expected a value, got none")
        else:
            found[name] = before
    try:
        return kind(**found)
    except ValueError as error:  # from __post_init__; begins with the field
        raise ValueError(_join(where, str(error))) from error


def to_dict(value: Any) -> Any:
    """Returns settings as nested dictionaries of plain values, for `read_settings`."""
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return {name: to_dict(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: to_dict(item) for name, item in value.items()}
    return value


def tag_of(kinds: Sequence[type]) -> tuple[str, dict[str, type]]:
    """Returns the field that tells a union's classes apart, and classes by value."""
    for name in fields_of(kinds[0]):
        types_ = [
            fields_of(kind)[name].type for kind in kinds if name in fields_of(kind)
        ]
        values = [value for found in types_ for value in typing.get_args(found)]
        literal = all(typing.get_origin(found) is Literal for found in types_)
        if literal and len(set(values)) == len(values) == len(kinds):
            return name, dict(zip(values, kinds, strict=True))
    raise TypeError(f"{kinds}: expected a Literal field that tells them apart")


def union_of(annotation: Any) -> tuple[type, ...]:
    """Returns the settings classes an annotation allows; none for a plain value."""
    parts = _options(annotation)
    found: Any = (part for part in parts if dataclasses.is_dataclass(part))
    return tuple(found)


def describe(field: SettingField) -> str:
    """Describes the allowed values of a field: "int, at least 1"."""
    rules = [rule for rule in field.rules if isinstance(rule, Range)]
    texts = [rule for rule in field.rules if isinstance(rule, OneOf)]
    if texts:
        return f"one of {sorted(texts[0].choices)}"
    return ", ".join([_words(field.type), *map(str, rules)])


def _bare(annotation: Any) -> tuple[Any, tuple]:
    """Returns the annotation without Annotated, and its rules, those of items too."""
    if typing.get_origin(annotation) is Annotated:
        inner, *own = typing.get_args(annotation)
        bare_inner, more = _bare(inner)
        return bare_inner, (*own, *more)
    parts = [_bare(part) for part in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (tuple, types.UnionType, typing.Union):
        rules = tuple(dict.fromkeys(rule for _, found in parts for rule in found))
        bare = tuple(part for part, _ in parts)
        origin: Any = tuple if typing.get_origin(annotation) is tuple else typing.Union
        return origin[bare], rules
    return annotation, ()


def _options(annotation: Any) -> tuple:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def _read(path: str, field: SettingField, value: Any, before: Any) -> Any:
    kinds = union_of(field.type)
    if kinds:
        return _read_nested(path, kinds, value, before)
    if typing.get_origin(field.type) is Mapping and isinstance(value, Mapping):
        return _read_named(path, typing.get_args(field.type)[1], value)
    try:
        found = _convert(field.type, value)
    except TypeError:
        raise ValueError(f"{path}: expected {describe(field)}, got {value!r}") from None
    for rule in field.rules:
        if isinstance(rule, OneOf):
            fine = found in rule.choices
        else:
            fine = all(rule.holds(number) for number in _numbers(found))
        if not fine:
            raise ValueError(f"{path}: expected {describe(field)}, got {value!r}")
    return found


def _read_nested(path: str, kinds: tuple[type, ...], value: Any, before: Any) -> Any:
    """Reads nested settings; fields not given, including the tag, keep their values."""
    if isinstance(value, kinds):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected fields and values, got {value!r}")
    kind, text = kinds[0], ""
    if len(kinds) > 1:
        tag, by_tag = tag_of(kinds)
        name = value.get(tag, getattr(before, tag, None))
        text = f" with {tag} {name!r}"
        if name not in by_tag:
            raise ValueError(
                f"{path}.{tag}: expected one of {sorted(by_tag)}, got {name!r}"
            )
        kind = by_tag[name]
    base = before if isinstance(before, kind) else None
    return _build(kind, value, path, base, text)


def _read_named(path: str, annotation: Any, values: Mapping) -> dict[str, Any]:
    """Reads settings under user-chosen names; plain values where there is no class."""
    kinds = union_of(annotation)
    if not kinds:
        return dict(values)
    return {
        name: _read_nested(f"{path}.{name}", kinds, value, None)
        for name, value in values.items()
    }


def _convert(annotation: Any, value: Any) -> Any:
    """Converts a value to a field's type; raises TypeError for any other type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return _convert(option, value)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal:
        if any(type(value) is type(x) and value == x for x in arguments):
            return value
        raise TypeError
    if origin is tuple:
        return _convert_tuple(arguments, value)
    if annotation is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    # type(), as True is an int for isinstance.
    if type(value) is annotation and annotation is not float:
        return value
    raise TypeError


def _convert_tuple(arguments: tuple, value: Any) -> tuple:
    if not isinstance(value, list | tuple):
        raise TypeError
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise TypeError
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(argument, item) for argument, item in pairs)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if type(value) in (int, float) else []


def _words(annotation: Any) -> str:
    """Returns a type as a user would write it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_words, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"({_words(arguments[0])}, ..)"
    if origin is tuple:
        return f"({', '.join(map(_words, arguments))})"
    if origin is Mapping:
        return "fields by name"
    return "None" if annotation is type(None) else annotation.__name__


def _unknown(name: str, known: Collection[str], tag: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no such field{tag}; {hint}expected one of {sorted(known)}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
