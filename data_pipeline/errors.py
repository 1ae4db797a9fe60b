"""Errors that name the defects of the files of a data set."""

import reprlib
from collections.abc import Callable
from typing import TypeGuard, TypeVar
from unicodedata import category

T = TypeVar("T")


class DataError(ValueError):
    """A defect in a data file, with the place where it was found.

    Args:
      file: the annotation file or image.
      expected: what should stand there.
      got: what stands there; long values are shortened.
      video: the video, by id or name.
      annotation: the id of the annotation.
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


Report = Callable[[DataError], None]  # told of each defect


def stop(error: DataError) -> None:
    """Reports a defect by raising it, so that the first one ends the reading."""
    raise error


def attempt(report: Report, read: Callable[..., T], *args: object) -> T | None:
    """Returns `read(*args)`, or None if it raises a DataError, which is reported."""
    try:
        return read(*args)
    except DataError as error:
        report(error)
        return None


def printable(text: str) -> str:
    """One line: control characters, which a terminal would obey, are escaped."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text
    )


def is_name(value: object) -> TypeGuard[str]:
    """Whether this can name a category: text without control characters or ends of
    lines, of which no picture, table or terminal can make anything."""
    if not isinstance(value, str) or not value:
        return False
    return not any(category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in value)


def shorten(value: object, limit: int = 120) -> str:
    """Text of a value, cut in the middle if long."""
    text = value if isinstance(value, str) else _REPR.repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} .. {text[-limit // 4 :]}"


def _make_repr() -> reprlib.Repr:
    """Like `repr`, but quick and short for values that are huge or deeply nested."""
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxlist = short.maxtuple = short.maxdict = 20
    short.maxstring = short.maxother = short.maxlong = 200
    return short


_REPR = _make_repr()
