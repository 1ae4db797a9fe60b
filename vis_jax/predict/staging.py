"""A folder that appears all at once, or not at all."""

import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A new folder on the file system of `output`, gone afterwards.

    Errors of the file system name files in it as they would be called in `output`.
    """
    ancestor = output.absolute().parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    _remove_abandoned(output.name, ancestor)
    prefix = f".{output.name}.partial-{socket.gethostname()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=ancestor) as temporary:
        folder = Path(temporary) / "output"
        folder.mkdir()  # unlike the temporary folder, with the user's permissions
        try:
            yield folder
        except OSError as error:
            file = Path(str(error.filename))
            if not file.is_relative_to(folder):
                raise
            shown = str(output / file.relative_to(folder))
            raise OSError(error.errno, error.strerror, shown) from error


def _remove_abandoned(name: str, ancestor: Path) -> None:
    """Removes staging folders of processes of this host that were killed."""
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
    except (PermissionError, OverflowError):  # of another user, or no number of ours
        return True
    return True


def publish(folder: Path, output: Path, names: Sequence[str]) -> None:
    """Moves what was written to its place; earlier results there go.

    Args:
      folder: what was written.
      output: the place.
      names: of all that may be among results, the last one at last.
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
