"""Folders on a disk or in a bucket, such as gs://bucket/runs/one.

All are `etils.epath.Path`, which Orbax, TensorStore and JAX's compilation cache accept.
Writers that need a local file, such as those of video and JSON, write to a local folder
that is copied when it is complete; readers of exports read a local copy.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

SCHEMES = "gs://, s3:// or az://"
INCOMPLETE = "INCOMPLETE"  # file in a folder of a bucket that is still being copied


def is_remote(path: str | os.PathLike) -> bool:
    """Returns whether the path is in a bucket rather than on a local disk."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path, or the bucket address, as Orbax requires."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).resolve()


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a text file on a disk or in a bucket; its folder is created.

    Args:
      path: replaced, if it exists, once the new file is complete.
      text: content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def check_folder(name: str, path: str | os.PathLike) -> None:
    """Raises ValueError if the folder cannot be read or written.

    Args:
      name: flag or argument to name in the message.
      path: folder.
    """
    try:
        epath.Path(path)
    except KeyError as error:  # raised by epath for an unknown scheme
        text = f"expected a folder on a disk or of {SCHEMES}, got {os.fspath(path)}"
        raise ValueError(f"{name}: {text}") from error


def on_disk(name: str, path: str | os.PathLike) -> Path:
    """Returns the path of a file or folder that must be on a local disk.

    Args:
      name: flag or argument to name in the message.
      path: file or folder.

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
    """Copies a folder recursively, between disks and buckets.

    Args:
      source: the folder.
      target: created if missing; files of the same name are replaced.
      last: file to copy last; its presence marks the copy as complete.
    """
    source, target = epath.Path(source), epath.Path(target)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == last):
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            path.copy(target / path.name, overwrite=True)


def is_incomplete(folder: str | os.PathLike) -> bool:
    """Returns whether `written_locally` left this folder of a bucket incomplete."""
    return is_remote(folder) and (epath.Path(folder) / INCOMPLETE).exists()


@contextmanager
def written_locally(
    folder: epath.PathLike, *, replaced: Iterable[str] | None = ()
) -> Iterator[Path]:
    """Yields a local folder whose files end up in `folder`.

    On a disk that is `folder` itself. For a bucket it is a temporary folder, copied
    unless an error is raised; files in a bucket are written atomically. Until all are
    copied, `folder` has a file INCOMPLETE, so that the work can be repeated after a
    copy that broke off.

    Args:
      folder: on a disk or in a bucket.
      replaced: names of files and folders to remove from a bucket; None = all.
    """
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as name:
        local = Path(name) / "folder"
        yield local
        if local.exists():
            _publish(local, epath.Path(folder), replaced)


def _publish(local: Path, target: epath.Path, replaced: Iterable[str] | None) -> None:
    marker = target / INCOMPLETE
    write_atomically(marker, "This folder is being copied, or its copy broke off.\n")
    if replaced is None:
        replaced = {path.name for path in target.iterdir()} - {INCOMPLETE}
    for name in replaced:
        old = target / name
        if old.is_dir():
            old.rmtree()
        else:
            old.unlink(missing_ok=True)
    copy_folder(local, target)
    marker.unlink(missing_ok=True)  # another process may write to the same folder


@contextmanager
def read_locally(folder: str | os.PathLike, *, file: str = "") -> Iterator[Path]:
    """Yields a local folder with the files of `folder`, for readers that map them.

    On a disk that is `folder` itself, for a bucket a temporary copy of it.

    Args:
      folder: on a disk or in a bucket.
      file: the only file that is read; "" = all.

    Raises:
      ValueError: as the enclosed work does, with the names of files in the bucket.
    """
    if not is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as name, naming_bucket(name, folder):
        one = epath.Path(folder) / file
        if not file:
            copy_folder(folder, name)
        elif one.exists():
            one.copy(Path(name) / file)
        yield Path(name)


@contextmanager
def naming_bucket(local: str, folder: str | os.PathLike) -> Iterator[None]:
    """Makes a ValueError name files of the bucket instead of their local copies.

    Args:
      local: the folder of the copies.
      folder: in the bucket.
    """
    try:
        yield
    except ValueError as error:
        error.args = (str(error).replace(local, os.fspath(folder)), *error.args[1:])
        raise


def check_regular(path: str | os.PathLike) -> None:
    """Raises ValueError if a path exists on a disk and is no regular file.

    A pipe or a device would be waited for, or never end.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: expected a regular file, got something else")
