"""Folders on a disk or in a bucket, such as gs://bucket/runs/one.

All of them are `etils.epath.Path`, which Orbax, TensorStore and JAX's compilation cache
take as well. What must have a local file, as video and JSON writers do, writes to a
local folder that is copied when it is complete.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

SCHEMES = "gs://, s3:// or az://"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it is not on a disk of this machine."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """The path from the root of the disk, or the address; Orbax refuses others."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).resolve()


def check_folder(name: str, path: str | os.PathLike) -> None:
    """Raises ValueError if nothing can be read or written there.

    Args:
      name: of the flag or argument, for the message.
      path: of a folder.
    """
    try:
        epath.Path(path)
    except KeyError as error:  # of epath, on a scheme that it does not know
        text = f"expected a folder on a disk or of {SCHEMES}, got {os.fspath(path)}"
        raise ValueError(f"{name}: {text}") from error


def on_disk(name: str, path: str | os.PathLike) -> Path:
    """The path of something that has to be on a disk.

    Args:
      name: of the flag or argument, for the message.
      path: of a file or folder.

    Raises:
      ValueError: it is in a bucket.
    """
    if is_remote(path):
        got = os.fspath(path)
        raise ValueError(f"{name}: expected a path on a disk, got {got}")
    return Path(path)


def copy_folder(
    source: epath.PathLike, target: epath.PathLike, *, last: str = ""
) -> None:
    """Copies a folder with all that is in it, between any two places.

    Args:
      source: the folder.
      target: made if it is not there; files of the same names are replaced.
      last: the file that is copied when all others are; whoever finds it finds all.
    """
    source, target = epath.Path(source), epath.Path(target)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == last):
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            path.copy(target / path.name, overwrite=True)


@contextmanager
def written_locally(folder: epath.PathLike, *, last: str = "") -> Iterator[Path]:
    """A local folder whose files are in `folder` at the end.

    That is `folder` itself on a disk. For a bucket it is a temporary one, which is
    copied unless an error comes, and a file in a bucket is there whole or not at all.

    Args:
      folder: on a disk or in a bucket.
      last: see `copy_folder`.
    """
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as name:
        local = Path(name) / "folder"
        yield local
        if local.exists():
            copy_folder(local, folder, last=last)
