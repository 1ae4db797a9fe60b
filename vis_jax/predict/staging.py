"""Atomic writing of an output folder."""

import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from vis_jax.paths import is_incomplete, is_remote
from vis_jax.predict.errors import PredictError


def check_output(output: epath.PathLike, *, overwrite: bool = False) -> None:
    """Checks that a folder on a disk or in a bucket may take results.

    Files of a copy to a bucket that broke off may be replaced.

    Raises:
      PredictError: it is a file, or has content that is not to be replaced.
    """
    if is_remote(output) and (overwrite or is_incomplete(output)):
        return
    path = epath.Path(output)
    if path.exists() and not path.is_dir():
        raise PredictError(f"{output}: expected a folder, found a file")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise PredictError(f"{output}: not empty; pass overwrite to replace results")


def check_writable(output: epath.PathLike) -> None:
    """Raises OSError, naming it, if a folder on a disk cannot be written."""
    if not is_remote(output):
        with staging(Path(output)):
            pass


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """Yields a temporary folder on the file system of `output`, removed afterwards.

    File-system errors name its files by their path in `output`.
    """
    ancestor = output.absolute().parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    _remove_abandoned(output.name, ancestor)
    prefix = f".{output.name}.partial-{socket.gethostname()}-{os.getpid()}-"
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=ancestor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from error
    with made as temporary:
        folder = Path(temporary) / "output"
        folder.mkdir()  # with the user's permissions, unlike the temporary folder
        try:
            yield folder
        except OSError as error:
            file = Path(str(error.filename))
            if not file.is_relative_to(folder):
                raise
            shown = str(output / file.relative_to(folder))
            raise OSError(error.errno, error.strerror, shown) from error


def _remove_abandoned(name: str, ancestor: Path) -> None:
    """Removes staging folders left by killed processes of this host."""
    host = re.escape(socket.gethostname())
    for folder in ancestor.glob(f".{glob.escape(name)}.partial-*"):
        made = re.fullmatch(rf".*\.partial-{host}-(\d+)-\w+", folder.name)
        if made and not _runs(int(made[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or not a process id
        return True
    return True


def publish(folder: Path, output: Path, names: Sequence[str]) -> None:
    """Moves staged files to `output`, replacing earlier results.

    Args:
      folder: the staging folder.
      output: destination.
      names: all possible result files; the last is moved last.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        os.replace(folder, output)
        return
    for name in names:
        made, old = folder / name, output / name
        if old.is_dir():
            shutil.rmtree(old)
        if made.exists():
            os.replace(made, old)
        else:
            old.unlink(missing_ok=True)
