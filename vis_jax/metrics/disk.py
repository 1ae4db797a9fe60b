"""Errors of writing that say which file could not be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


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
