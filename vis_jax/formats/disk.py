"""Errors of writing that say which file could not be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


def check_folder(name: str, path: os.PathLike | str | None) -> None:
    """Checks that a file can be put there, before the work rather than after it.

    Args:
      name: of the flag or argument, for the message.
      path: of the file; None: nothing is written.

    Raises:
      ValueError: its folder does not exist, or it is a folder itself.
    """
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"{name}: expected a file in an existing folder, got {folder}")
    if os.path.isdir(path):
        raise ValueError(f"{name}: expected a file, got the folder {os.fspath(path)}")


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
