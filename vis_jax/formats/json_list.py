"""Reads a JSON list item by item, without loading a large file into memory."""

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator

from vis_jax.formats.json_checks import FormatError, reading, show
from vis_jax.formats.unpack import open_unpacked

# Minimum characters per read.
_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


def read_list(path: str | os.PathLike) -> Iterator[object]:
    """Yields the items of a file that is one JSON list, plain or packed.

    Items before a defect are yielded, so discard them if the file fails.

    Raises:
      FormatError: not readable, not UTF-8, not JSON, truncated, nested too deeply, not
        a list, or as in `unpack.open_unpacked`.
    """
    with _opened(path) as text:
        if text.peek() != "[":
            raise FormatError(
                f"{path}: top level: expected a list, got {show(text.value())}"
            )
        yield from _items(text)
        if text.peek():
            raise text.error("nothing after the list")


def read_list_or_field(path: str | os.PathLike, key: str) -> Iterator[object]:
    """Like `read_list`, or reads a list field of an object, e.g. {"results": [..]}.

    Args:
      path: the file.
      key: name of the field; others are skipped.

    Raises:
      FormatError: as in `read_list`, or the object has no such list, or two.
    """
    with _opened(path) as text:
        mark = text.peek()
        if mark == "[":
            yield from _items(text)
        elif mark == "{":
            yield from _items_of_field(text, path, key)
        else:
            expected = f"a list, or an object with a list {key!r}"
            got = show(text.value())
            raise FormatError(f"{path}: top level: expected {expected}, got {got}")
        if text.peek():
            raise text.error("nothing after the list")


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator["_Text"]:
    with (
        reading(path),
        open_unpacked(path) as raw,
        io.TextIOWrapper(raw, encoding="utf-8") as file,
    ):
        text = _Text(file)
        if text.peek() == "\ufeff":
            raise ValueError("a byte order mark")
        yield text


def _items_of_field(
    text: "_Text", path: str | os.PathLike, key: str
) -> Iterator[object]:
    """Yields the items of the list under `key`, and consumes the whole object."""
    keys: list[object] = []
    text.take()
    while text.peek() != "}":
        if keys:
            text.expect(",")
        if text.peek() != '"':
            raise text.error("property name enclosed in double quotes")
        keys.append(text.value())
        text.expect(":")
        if keys[-1] != key:
            text.value()
        elif keys.count(key) > 1:
            raise FormatError(f"{path}: {key}: expected one, got two")
        elif text.peek() != "[":
            got = show(text.value())
            raise FormatError(f"{path}: {key}: expected a list, got {got}")
        else:
            yield from _items(text)
    text.take()
    if key not in keys:
        raise FormatError(
            f"{path}: top level: expected a list, or an object with a list {key!r}, got"
            f" an object with {show(keys)}"
        )


def _items(text: "_Text") -> Iterator[object]:
    """Yields the items of a list that begins at the next character; consumes it."""
    text.take()
    if text.peek() == "]":
        text.take()
        return
    while True:
        yield text.value()
        mark = text.peek()
        if mark not in (",", "]"):
            raise text.error("',' or ']'")
        text.take()
        if mark == "]":
            return


class _Text:
    """Unconsumed text of a file, read on demand."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters consumed before self._text
        self._block = _BLOCK
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Returns the next non-space character; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self) -> None:
        """Consumes a character."""
        self._at += 1

    def expect(self, mark: str) -> None:
        """Consumes the next non-space character, which must be `mark`."""
        if self.peek() != mark:
            raise self.error(repr(mark))
        self.take()

    def value(self) -> object:
        """Consumes and returns a value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                place = self._before + error.pos
                if not (self._cut_off(error) and self._read_on()):
                    raise ValueError(f"{error.msg}: char {place}") from error
                continue
            size = end - self._at
            # "1.5" may have been read only up to "1.", or "1e-5" up to "1e-".
            whole = len(self._text) - end > 2 or not isinstance(value, int | float)
            if whole or not self._read_on():
                self._at += size
                self._block = max(self._block, 2 * size)
                return value

    def _cut_off(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could fix the error: names and escapes are short."""
        at_end = error.pos > len(self._text) - 16
        return at_end or error.msg.startswith("Unterminated")

    def error(self, expected: str) -> ValueError:
        """Returns an error at the next character."""
        return ValueError(f"Expecting {expected}: char {self._before + self._at}")

    def _read_on(self) -> bool:
        """Reads on, at least doubling the unconsumed text so that retries stay few."""
        rest = self._text[self._at :]
        block = self._file.read(max(self._block, len(rest)))
        self._before += self._at
        self._text, self._at = rest + block, 0
        return bool(block)
