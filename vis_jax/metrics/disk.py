"""Errors of writing that say which file could not be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
    """Gives every error of the file system inside the name of this file.

    By itself that of a full disk names no file, and others name a temporary one.

    Args:
      path: the only file that is written inside.

    Raises:
      OSError: one came; has `filename`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, os.fspath(path)) from error


@contextmanager
def replacing(path: os.PathLike | str) -> Iterator[TextIO]:
    """A text file that gets its name once it is complete: never half a file.

    Args:
      path: replaced if it exists.

    Raises:
      OSError: it cannot be written, as on a full disk; names the file.
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with naming(path):
            with open(temporary, "w", encoding="utf-8") as file:
                yield file
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
