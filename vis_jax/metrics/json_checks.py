"""Reading JSON written by strangers: one clear line for each thing that is wrong."""

import contextlib
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, NoReturn, TypeGuard

import numpy as np

from vis_jax.metrics.disk import naming

# Of a frame; 8192 x 4320 fit. Writing run lengths, pycocotools reserves six characters
# for each and none for the end: three runs of 2**24 pixels would reach beyond.
MAX_PIXELS = 3 * 2**24 - 1


class FormatError(ValueError):
    """A truth or results file that cannot be scored; the message is one line."""


class Checker(NamedTuple):
    """What is known while a file is read: its name, how strict, what was let pass."""

    file: str
    strict: bool
    tolerated: Counter
    lines: list[str] | None = None  # if a list: gets a line for all that is tolerated

    def fail(self, where: str, expected: str, got: object) -> NoReturn:
        """Raises FormatError: `file: where: expected .., got ..`."""
        raise FormatError(self.line(where, expected, got))

    def line(self, where: str, expected: str, got: object) -> str:
        """The message of an error."""
        return f"{self.file}: {where}: expected {expected}, got {show(got)}"

    def tolerate(self, kind: str, where: str, expected: str, got: object) -> None:
        """Counts a defect that the official tool accepts; an error if strict."""
        if self.strict:
            self.fail(where, expected, got)
        self.tolerated[kind] += 1
        if self.lines is not None:
            self.lines.append(self.line(where, expected, got))

    def record(self, value: object, where: str) -> dict:
        """`value` if it is a JSON object."""
        if not isinstance(value, dict):
            self.fail(where, "an object", value)
        return value

    def field(self, record: dict, key: str, where: str) -> object:
        """`record[key]`, which has to be there."""
        if key not in record:
            self.fail(f"{where}: {key}", "a value", Missing())
        return record[key]

    def integer(self, record: dict, key: str, where: str, *, low: int) -> int:
        """An integer of at least `low`; true and 1.0 are none."""
        value = self.field(record, key, where)
        if not is_integer(value) or value < low:
            self.fail(f"{where}: {key}", f"an integer >= {low}", value)
        return int(value)

    def items(self, record: dict, key: str, where: str) -> list:
        """A list."""
        value = self.field(record, key, where)
        if not isinstance(value, list | tuple):
            self.fail(f"{where}: {key}", "a list", value)
        return list(value)

    def text(self, record: dict, key: str, where: str) -> str:
        """A string."""
        value = self.field(record, key, where)
        if not isinstance(value, str):
            self.fail(f"{where}: {key}", "a string", value)
        return value

    def size(self, value: object, where: str) -> tuple[int, int]:
        """Height, width in pixels."""
        expected = f"[height, width], at least 1 and in all at most {MAX_PIXELS} pixels"
        if not isinstance(value, list | tuple) or len(value) != 2:
            self.fail(where, expected, value)
        if not all(is_integer(side) and side >= 1 for side in value):
            self.fail(where, expected, value)
        if value[0] * value[1] > MAX_PIXELS:
            self.fail(where, expected, value)
        return int(value[0]), int(value[1])


class Missing:
    """Stands for a key that is not there in an error message."""

    def __repr__(self) -> str:
        return "nothing (key missing)"


def show(value: object) -> str:
    """A value in few characters, on one line, whatever its depth."""
    if isinstance(value, Exception):
        return " ".join(str(value).split())[:160]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.maxlevel, short.maxlist, short.maxdict = 2, 4, 4
    if is_integer(value) and abs(value) >= 10**18:
        return "an integer beyond 10**18"
    return short.repr(value)


def is_integer(value: object) -> TypeGuard[int]:
    """True for int and NumPy integers, False for bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """True for finite numbers, False for bool, NaN, infinity and what is no number."""
    if is_integer(value):
        return abs(value) < 10**18
    return isinstance(value, float | np.floating) and math.isfinite(value)


def read_json(path: str | os.PathLike) -> object:
    """The content of a JSON file.

    Raises:
      FormatError: as `reading`.
    """
    with reading(path), open(path, encoding="utf-8") as file:
        return json.load(file)


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Names the file in what goes wrong while it is opened, read and decoded.

    Raises:
      FormatError: not readable, not UTF-8, not JSON, cut off, or nested too deeply.
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
    """Writes JSON under a temporary name, then renames: never half a file.

    Raises:
      OSError: it cannot be written, as on a full disk; names the file.
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with naming(path):
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=indent, allow_nan=False)
                file.write("\n")
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
