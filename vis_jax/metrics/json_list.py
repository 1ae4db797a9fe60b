"""A JSON list read item by item, so that a large file is never whole in memory."""

import json
import os
import re
from collections.abc import Iterator
from typing import TextIO

from vis_jax.metrics.json_checks import FormatError, reading, show

# Characters read at a time, at least.
_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


def read_list(path: str | os.PathLike) -> Iterator[object]:
    """Yields the items of a file that is one JSON list.

    Items before a defect are yielded, so nothing may be kept of a file that fails.

    Raises:
      FormatError: not readable, not UTF-8, not JSON, cut off, nested too deeply, or
        something else than a list.
    """
    with reading(path), open(path, encoding="utf-8") as file:
        text = _Text(file)
        if text.peek() == "\ufeff":
            raise ValueError("a byte order mark")
        if text.peek() != "[":
            raise FormatError(
                f"{path}: top level: expected a list, got {show(text.value())}"
            )
        text.take()
        if text.peek() == "]":
            text.take()
        else:
            yield from _items(text)
        if text.peek():
            raise text.error("nothing after the list")


def _items(text: "_Text") -> Iterator[object]:
    """The items after the opening bracket, and the closing bracket taken."""
    while True:
        yield text.value()
        mark = text.peek()
        if mark not in (",", "]"):
            raise text.error("',' or ']'")
        text.take()
        if mark == "]":
            return


class _Text:
    """What has not been taken yet of a file, read on when needed."""

    def __init__(self, file: TextIO):
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters taken before self._text
        self._block = _BLOCK
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self) -> None:
        """Goes on to the next character."""
        self._at += 1

    def value(self) -> object:
        """Takes a whole value."""
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
            # Of a number "1.5", "1." may have been read so far, or "1e-" of "1e-5".
            whole = len(self._text) - end > 2 or not isinstance(value, int | float)
            if whole or not self._read_on():
                self._at += size
                self._block = max(self._block, 2 * size)
                return value

    def _cut_off(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could mend it: names and escapes are short."""
        at_end = error.pos > len(self._text) - 16
        return at_end or error.msg.startswith("Unterminated")

    def error(self, expected: str) -> ValueError:
        """An error at the next character."""
        return ValueError(f"Expecting {expected}: char {self._before + self._at}")

    def _read_on(self) -> bool:
        """Reads as much as is left or has been needed, so that tries stay few."""
        rest = self._text[self._at :]
        block = self._file.read(max(self._block, len(rest)))
        self._before += self._at
        self._text, self._at = rest + block, 0
        return bool(block)
