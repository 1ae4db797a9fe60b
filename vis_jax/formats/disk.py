"""Writes files and folders atomically; errors name what could not be written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def check_folder(name: str, path: os.PathLike | str | None) -> None:
    """Checks, before the work starts, that a file can be written to a path.

    Args:
      name: flag or argument to name in the message.
      path: output file; None: nothing is written.

    Raises:
      ValueError: its folder does not exist, or the path is a folder.
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
    """Adds the name of this file to file-system errors raised inside.

    The error of a full disk otherwise names no file, and others a temporary one.

    Args:
      path: the only file that is written inside.

    Raises:
      OSError: with `filename` set.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, os.fspath(path)) from error


@contextmanager
def replacing(path: os.PathLike | str) -> Iterator[TextIO]:
    """Opens a text file for atomic writing: it gets its name once it is complete.

    Args:
      path: replaced if it exists.

    Raises:
      OSError: it cannot be written, e.g. the disk is full; names the file.
    """
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file


@contextmanager
def replaced(path: os.PathLike | str) -> Iterator[str]:
    """Yields the path of a temporary file beside `path`, which it replaces at the end.

    After an error the temporary file is removed, and `path` stays as it was.

    Args:
      path: replaced if it exists.

    Raises:
      OSError: it cannot be written, e.g. the disk is full; names `path`.
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Like `replaced`, for a folder that does not exist or is empty.

    The caller makes the temporary folder; parents of `folder` are made here.

    Args:
      folder: local folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, folder)  # also replaces an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
