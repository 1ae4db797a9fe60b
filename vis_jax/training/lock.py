"""Locks a workdir to one run at a time; two would delete each other's checkpoints."""

import datetime
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from vis_jax.paths import is_remote

LOCK = "run.lock"  # in the workdir
# Errors of file systems without locks, such as Lustre without `flock`.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class WorkdirInUseError(ValueError):
    """Another run uses this workdir."""


@contextmanager
def only_run(workdir: str, *, say: Callable[[str], None] | None = None) -> Iterator:
    """Holds `workdir/run.lock`, which records host, process id and start time.

    The operating system releases the lock when its holder ends for any reason; the lock
    of a dead holder is taken over. A bucket (gs://..) has no locks: the file only warns
    a second run, through `say`, that another may be active.

    Args:
      workdir: folder of the run; call this in its first process only.
      say: receives a warning; default: stderr.

    Raises:
      WorkdirInUseError: another process holds it.
    """
    if is_remote(workdir):
        with _marked(epath.Path(workdir) / LOCK, say or _to_stderr):
            yield
        return
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(path, descriptor, workdir)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, _holder().encode(), 0)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)  # releases it where there are no locks
    finally:
        os.close(descriptor)


def _take(path: Path, descriptor: int, workdir: str) -> None:
    """Locks the file, or raises WorkdirInUseError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if _is_dead(_read(path)):
            return
    raise WorkdirInUseError(
        f"{workdir}: expected no other run on this workdir, got {_words(_read(path))};"
        f" wait for its end or choose another --workdir"
        + ("" if _read(path).get("host") == socket.gethostname() else _elsewhere(path))
    )


def _elsewhere(path: Path) -> str:
    return f" (if that run has ended without releasing the lock, delete {path})"


@contextmanager
def _marked(path: epath.Path, say: Callable[[str], None]) -> Iterator[None]:
    """Writes the lock file in a bucket, and removes it at the end."""
    found = _read(path) if path.exists() else {}
    if found and not _is_dead(found):
        say(
            f"warning: {path} names {_words(found)}, and a bucket has no locks: if that"
            " run is alive, stop one of the two, or they destroy each other's"
            " checkpoints"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_holder())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _holder() -> str:
    start = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "start": start}
    return json.dumps(holder) + "\n"


def _read(path: epath.Path | Path) -> dict:
    """Reads the holder of the lock; empty if the file has none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(holder: dict) -> bool:
    """Returns whether the holder is known on this host to have ended."""
    if not holder:
        return True
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError, TypeError):
        return True
    except PermissionError:  # another user's process
        return False
    return int(holder["pid"]) == os.getpid()


def _words(holder: dict) -> str:
    if not holder:
        return "one that has not written who it is"
    return (
        f"process {holder.get('pid')} on host {holder.get('host')}, started"
        f" {holder.get('start')}"
    )


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
