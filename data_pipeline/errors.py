"""Errors that report defects in data-set files."""

import reprlib
from collections.abc import Callable
from typing import TypeGuard, TypeVar
from unicodedata import category

T = TypeVar("T")


class DataError(ValueError):
    """A defect in a data file, with its location.

    Args:
      file: the annotation file or image.
      expected: the expected value.
      got: the actual value; long ones are shortened.
      video: id or name of the video.
      annotation: id of the annotation.
      field: the field, for example `segmentations[3].counts`.
    """

    def __init__(
        self,
        file: object,
        *,
        expected: str,
        got: object,
        video: object = None,
        annotation: object = None,
        field: str | None = None,
    ) -> None:
        self.file, self.video, self.annotation = file, video, annotation
        self.field, self.expected, self.got = field, expected, got
        place = [str(file)]
        if video is not None:
            place.append(f"video {shorten(video)}")
        if annotation is not None:
            place.append(f"annotation {shorten(annotation)}")
        if field is not None:
            place.append(field)
        text = f"{', '.join(place)}: expected {expected}, got {shorten(got)}"
        super().__init__(printable(text))


Report = Callable[[DataError], None]  # receives each defect
Fail = Callable[..., DataError]  # makes the error from `field`, `expected` and `got`


def stop(error: DataError) -> None:
    """Reports a defect by raising it, so reading stops at the first one."""
    raise error


def attempt(report: Report, read: Callable[..., T], *args: object) -> T | None:
    """Returns `read(*args)`, or None if it raises a DataError, which is reported."""
    try:
        return read(*args)
    except DataError as error:
        report(error)
        return None


def printable(text: str) -> str:
    """Escapes control characters, so that text prints on one line."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text
    )


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value can name a category: one line of text without control characters.

    Images, tables and terminals cannot show these.
    """
    if not isinstance(value, str) or not value:
        return False
    return not any(category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in value)


def shorten(value: object, limit: int = 120) -> str:
    """Formats a value, cutting out the middle if it is long."""
    text = value if isinstance(value, str) else _REPR.repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} .. {text[-limit // 4 :]}"


def _make_repr() -> reprlib.Repr:
    """Makes a `repr` that is fast and short for huge or deeply nested values."""
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxlist = short.maxtuple = short.maxdict = 20
    short.maxstring = short.maxother = short.maxlong = 200
    return short


_REPR = _make_repr()
