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

NOT_EMPTY = "not empty; pass overwrite to replace results"


def check_bucket(output: str, *, overwrite: bool) -> None:
    """Raises PredictError if an output in a bucket already has files.

    Those of a copy that broke off do not count. `vis_jax.predict.loop` checks a folder
    on a disk.
    """
    if overwrite or not is_remote(output) or is_incomplete(output):
        return
    path = epath.Path(output)
    if any(path.iterdir()) if path.is_dir() else path.exists():
        raise PredictError(f"{output}: {NOT_EMPTY}")


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
    with tempfile.TemporaryDirectory(prefix=prefix, dir=ancestor) as temporary:
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
