"""Validation of untrusted JSON, with a one-line message per defect."""

import contextlib
import io
import json
import math
import os
import reprlib
import stat
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, NoReturn, TypeGuard, cast

import numpy as np

from vis_jax.formats.disk import replacing
from vis_jax.formats.rle import MAX_PIXELS
from vis_jax.formats.tracks import Id


class FormatError(ValueError):
    """A ground-truth or results file that cannot be scored; the message is one line."""


class Checker(NamedTuple):
    """Context of reading a file: its name, strictness, and tolerated defects."""

    file: str
    strict: bool
    tolerated: Counter
    lines: list[str] | None = None  # if a list, receives a line per tolerated defect
    side: str = "truth"  # or "results"; prefix of the kinds of tolerated defects

    def fail(self, where: str, expected: str, got: object) -> NoReturn:
        """Raises FormatError: `file: where: expected .., got ..`."""
        raise FormatError(self.line(where, expected, got))

    def line(self, where: str, expected: str, got: object) -> str:
        """Formats the message of an error."""
        return f"{self.file}: {where}: expected {expected}, got {show(got)}"

    def tolerate(self, kind: str, where: str, expected: str, got: object) -> None:
        """Counts a defect that the official tool accepts; an error if strict."""
        if self.strict:
            self.fail(where, expected, got)
        self.tolerated[kind] += 1
        if self.lines is not None:
            self.lines.append(self.line(where, expected, got))

    def record(self, value: object, where: str) -> dict:
        """Returns `value` if it is a JSON object."""
        if not isinstance(value, dict):
            self.fail(where, "an object", value)
        return value

    def field(self, record: dict, key: str, where: str) -> object:
        """Returns `record[key]`, which must exist."""
        if key not in record:
            self.fail(f"{where}: {key}", "a value", Missing())
        return record[key]

    def integer(self, record: dict, key: str, where: str, *, low: int) -> int:
        """Returns an integer of at least `low`; true and 1.0 are rejected."""
        value = self.field(record, key, where)
        if not is_integer(value) or value < low:
            self.fail(f"{where}: {key}", f"an integer >= {low}", value)
        return int(value)

    def identifier(self, record: dict, key: str, where: str) -> Id:
        """Returns the id of a record: a finite number or text."""
        value = self.field(record, key, where)
        if not isinstance(value, str | bool) and not is_finite(value):
            self.fail(f"{where}: {key}", "an integer >= 0", value)
        if not is_integer(value) or value < 0:
            kind = f"{self.side}: ids that are not integers >= 0"
            self.tolerate(kind, f"{where}: {key}", "an integer >= 0", value)
        return cast(Id, plain_id(value))

    def reference(self, record: dict, key: str, where: str) -> Id:
        """Returns a reference to the id of another record."""
        value = self.field(record, key, where)
        if not isinstance(value, str | int | float | np.number):
            self.fail(f"{where}: {key}", "an id", value)
        found = cast(Id, plain_id(value))
        if type(found) is not type(value) and not is_integer(value):
            kind = f"{self.side}: ids of another type, such as 1.0 for 1"
            self.tolerate(kind, f"{where}: {key}", f"{found}", value)
        return found

    def items(self, record: dict, key: str, where: str) -> list:
        """Returns a list field."""
        value = self.field(record, key, where)
        if not isinstance(value, list | tuple):
            self.fail(f"{where}: {key}", "a list", value)
        return list(value)

    def text(self, record: dict, key: str, where: str) -> str:
        """Returns a string field."""
        value = self.field(record, key, where)
        if not isinstance(value, str):
            self.fail(f"{where}: {key}", "a string", value)
        return value

    def size(self, value: object, where: str) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        expected = f"[height, width], at least 1 and in all at most {MAX_PIXELS} pixels"
        if not isinstance(value, list | tuple) or len(value) < 2:
            self.fail(where, expected, value)
        height, width = (plain_id(side) for side in value[:2])
        if not is_integer(height) or not is_integer(width) or min(height, width) < 1:
            self.fail(where, expected, value)
        if height * width > MAX_PIXELS:
            self.fail(where, expected, value)
        if len(value) > 2 or not all(map(is_integer, value)):
            kind = f"{self.side}: sizes that are not two integers"
            self.tolerate(kind, where, expected, value)
        return height, width


class Missing:
    """Represents a missing key in an error message."""

    def __repr__(self) -> str:
        return "nothing (key missing)"


def show(value: object) -> str:
    """Formats any value briefly on one line."""
    if isinstance(value, Exception):
        return " ".join(str(value).split())[:160]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.maxlevel, short.maxlist, short.maxdict = 2, 4, 4
    if is_integer(value) and abs(value) >= 10**18:
        return "an integer beyond 10**18"
    return short.repr(value)


def plain_id(value: object) -> object:
    """Converts 1.0 or true to an integer; returns other values unchanged."""
    if isinstance(value, bool | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return int(value) if float(value).is_integer() else float(value)
    return value


def is_integer(value: object) -> TypeGuard[int]:
    """Returns whether a value is an int or NumPy integer, not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Returns whether a value is a finite number, not a bool."""
    if is_integer(value):
        return abs(value) < 10**18
    return isinstance(value, float | np.floating) and math.isfinite(value)


def open_regular(path: str | os.PathLike) -> io.BufferedReader:
    """Opens a file for reading bytes.

    Raises:
      FormatError: it is a pipe or a device, which may be endless.
      OSError: it cannot be opened.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FormatError(f"{path}: expected a regular file, got a pipe or a device")
    return open(path, "rb")


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Converts errors of opening, reading and decoding a file to FormatError.

    Raises:
      FormatError: not readable, not UTF-8, not JSON, truncated, or nested too deeply.
    """
    try:
        yield
    except FormatError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FormatError(f"{path}: expected a readable file, got: {reason}") from error
    except RecursionError as error:
        raise FormatError(
            f"{path}: expected a few levels of lists and objects, got nesting too deep"
        ) from error
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, got: {show(error)}") from error


def write_json(path: str | os.PathLike, content: object, *, indent: int | None) -> None:
    """Writes JSON atomically, under a temporary name that is then renamed.

    Raises:
      OSError: it cannot be written, e.g. the disk is full; names the file.
    """
    with replacing(path) as file:
        json.dump(content, file, indent=indent, allow_nan=False)
        file.write("\n")
