"""Inverts the name tables: from the new name of a regex rule to the old one.

A regex consists of characters, groups and alternatives. The old name follows from the
values of its groups, which the new name contains: of alternatives outside groups the
first is written, and optional parts are written, too. Regexes that this cannot invert,
such as `.*` outside a group, are read-only.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vis_jax.converters.rules import NameRule, Rename, compiled, first_match

_GROUP = re.compile(r"\\(\d)")
_SPECIAL = set(".*+?|^$[]{}")


class _Text(NamedTuple):
    """A regex as literal text between groups."""

    pieces: tuple[str | int, ...]  # literal text, and group numbers
    groups: dict[int, str]  # regex inside each group


class Reverse(NamedTuple):
    """A mapping from a new name back to an old one.

    Attributes:
      pattern: matches new names; its groups are those of the old regex.
      old: parts of the old name: literal text, and group numbers.
      place: index among the table's rules or renames.
      target: index among the rule's targets; 0 for a rename.
    """

    pattern: re.Pattern
    old: tuple[str | int, ...]
    place: int
    target: int = 0

    def name(self, new: str) -> str | None:
        """Returns the old name; None if the new one does not match."""
        match = self.pattern.fullmatch(new)
        if match is None:
            return None
        texts = (match[f"g{x}"] if isinstance(x, int) else x for x in self.old)
        return "".join(text or "" for text in texts)


def reverse_rules(rules: Sequence[NameRule]) -> list[Reverse]:
    """Returns the inverse mappings for a model's paths, in rule order."""
    return [
        found
        for place, rule in enumerate(rules)
        for target, (template, _) in enumerate(rule.targets)
        for found in _reverse(rule.source, template, place, target)
    ]


def reverse_renames(renames: Sequence[Rename]) -> list[Reverse]:
    """Returns the inverse mappings for new names, in rename order."""
    return [
        found
        for place, rename in enumerate(renames)
        if not rename.alias
        for found in _reverse(rename.source, rename.target, place, 0)
    ]


class OldNames:
    """Maps new names back to old ones.

    Args:
      renames: the table.
    """

    def __init__(self, renames: Sequence[Rename]) -> None:
        self._renames, self._table = renames, compiled(renames)
        self._reverse = reverse_renames(renames)

    def of(self, new: str) -> tuple[str, ...]:
        """Returns the names whose tensors make up the new one, part by part.

        A name that no rename produces is unchanged.

        Raises:
          ValueError: no old name maps to it.
        """
        for reverse in self._reverse:
            if not reverse.pattern.fullmatch(new):  # true for nearly all
                continue
            rename = self._renames[reverse.place]
            if rename.part == 0 and self._old(reverse, new):
                return tuple(
                    self._part(new, i, rename.parts) for i in range(rename.parts)
                )
        if first_match(self._table, new)[0] is None:
            return (new,)
        raise ValueError(f"{new!r}: no published name maps to it")

    def _part(self, new: str, part: int, parts: int) -> str:
        for reverse in self._reverse:
            rename = self._renames[reverse.place]
            old = self._old(reverse, new)
            if old is not None and (rename.part, rename.parts) == (part, parts):
                return old
        raise ValueError(f"{new!r}: no name for part {part} of {parts}")

    def _old(self, reverse: Reverse, new: str) -> str | None:
        """Returns the old name, if the table maps it to the new one."""
        old = reverse.name(new)
        if old is None:
            return None
        match, rename = first_match(self._table, old)
        fits = rename is self._renames[reverse.place] and match.expand(rename.target)
        return old if fits == new else None


def _reverse(source: str, template: str, place: int, target: int) -> Iterator[Reverse]:
    """Yields the inverse of a template, if there is one."""
    old = _text_of(source)
    if old is None:
        return
    shown: set[int] = set()
    regex = ""
    for index, piece in enumerate(_GROUP.split(template)):
        if index % 2 == 0:
            regex += re.escape(piece)
            continue
        number = int(piece)
        inside = old.groups[number]
        regex += f"(?P=g{number})" if number in shown else f"(?P<g{number}>{inside})"
        shown.add(number)
    if {piece for piece in old.pieces if isinstance(piece, int)} <= shown:
        yield Reverse(re.compile(regex), old.pieces, place, target)


def _text_of(regex: str) -> _Text | None:
    """Returns a regex as text around groups; None if it cannot be inverted."""
    pieces: list[str | int] = []
    groups: dict[int, str] = {}
    at = 0
    while at < len(regex):
        mark = regex[at]
        if mark == "\\" and not regex[at + 1].isalnum():
            pieces.append(regex[at + 1])
            at += 2
        elif mark == "(":
            end = _closing(regex, at)
            if regex.startswith("(?:", at):
                first = _text_of(_alternatives(regex[at + 3 : end])[0])
                if first is None or first.groups:
                    return None
                pieces += first.pieces
                end += regex.startswith("?", end + 1)
            else:
                number = 1 + _opened_before(regex, at)
                groups[number] = _without_captures(regex[at + 1 : end])
                pieces.append(number)
            at = end + 1
        elif mark == "\\" or mark in _SPECIAL:
            return None
        else:
            pieces.append(mark)
            at += 1
    return _Text(tuple(pieces), groups)


def _closing(regex: str, start: int) -> int:
    """Returns the position of the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(regex)):
        if regex[at - 1 : at] == "\\":
            continue
        depth += (regex[at] == "(") - (regex[at] == ")")
        if depth == 0:
            return at
    raise ValueError(f"regex {regex!r}: a bracket that does not close")


def _alternatives(regex: str) -> list[str]:
    """Splits at the alternatives outside all brackets."""
    found, depth = [""], 0
    for mark in regex:
        depth += (mark == "(") - (mark == ")")
        if mark == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += mark
    return found


def _opened_before(regex: str, at: int) -> int:
    """Counts the capturing groups that open before a position."""
    return len(re.findall(r"(?<!\\)\((?!\?)", regex[:at]))


def _without_captures(regex: str) -> str:
    """Returns the regex with non-capturing groups, as group names must be unique."""
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", regex)
