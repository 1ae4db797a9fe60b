"""Stores finished videos of an evaluation on disk, so that it can be resumed.

Each video is a line of `results.partial.jsonl`, or of the partial file of its share;
`vis_jax.evaluate.merge` turns them into `results.json` at the end.
"""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.shares import WHOLE, Share, partial_name
from vis_jax.formats.disk import naming
from vis_jax.results.files import entry_pieces
from vis_jax.results.video import VideoResult


class Finished:
    """Results of the finished videos of one evaluation, or of one share of it.

    A context manager that locks the file against other processes.

    Args:
      folder: created if missing.
      run_id: identifies what predictions depend on, such as checkpoint and settings;
        videos of another run are ignored and removed.
      share: part of the videos.
    """

    def __init__(
        self, folder: str | os.PathLike, run_id: str, share: Share = WHOLE
    ) -> None:
        self.folder, self.share = Path(folder), share
        self._path, self._run_id = self.folder / partial_name(share), run_id
        # Byte range of each video's entries in the file: first, and one past the last.
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "Finished":
        """Locks the file and reads which videos are finished.

        Raises:
          ValueError: the file is damaged, or locked by another process; names it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._path)
        try:
            partial = _read_partial(self._path, self._run_id)
            if partial is not None:
                self._places = partial.places
                os.truncate(self._path, partial.end)
            else:
                with naming(self._path), self._path.open("w") as file:
                    file.write(json.dumps({"run_id": self._run_id}) + "\n")
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def __contains__(self, video_id: int) -> bool:
        return video_id in self._places

    def add(self, dataset: Dataset, index: int, found: VideoResult) -> None:
        """Appends the results of a video to the file.

        Raises:
          OSError: the file cannot be written; names it.
        """
        video_id = dataset.videos[index].video_id
        ids = [category.category_id for category in dataset.categories]
        pieces = entry_pieces(found, video_id=video_id, category_ids=ids)
        before = self._path.stat().st_size
        try:
            with naming(self._path), self._path.open("ab") as file:
                file.write(f"[{video_id}, [".encode())
                begin = file.tell()
                file.writelines(piece.encode() for piece in pieces)
                end = file.tell()
                file.write(b"]]\n")
        except BaseException:
            os.truncate(self._path, before)
            raise
        self._places[video_id] = (begin, end)

    def entries(self, video_id: int) -> str:
        """Returns a finished video's entries, comma-separated JSON without brackets."""
        begin, end = self._places[video_id]
        with self._path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).decode()

    def remove(self) -> None:
        """Removes the file, once its entries have been copied."""
        self._path.unlink()


def run_of(path: Path) -> str | None:
    """Returns the run id of a partial file; None if it has no complete first line yet.

    Raises:
      ValueError: the line is damaged.
    """
    with path.open("rb") as file:
        line = file.readline()
    record = _parsed(path, 1, line) if line.endswith(b"\n") else None
    return record.get("run_id") if isinstance(record, dict) else None


def finished_ids(path: Path, run_id: str) -> set[int]:
    """Returns the ids of the finished videos in a run's partial file.

    Another process may be appending to the file at the time.

    Raises:
      ValueError: a line other than the last is damaged; names it.
    """
    partial = _read_partial(path, run_id)
    return set() if partial is None else set(partial.places)


def _locked(path: Path) -> int:
    """Returns a file descriptor that holds a lock on the file until it is closed.

    Raises:
      ValueError: another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"{path}: expected no other evaluation running there; wait for its end,"
            " or give another --output"
        ) from error
    except OSError:  # the file system has no locks
        pass
    return descriptor


class _Partial(NamedTuple):
    """Finished videos of a partial file."""

    # Byte range of each video's entries: first, and one past the last.
    places: dict[int, tuple[int, int]]
    end: int  # end of the last complete line, in bytes


def _read_partial(path: Path, run_id: str) -> _Partial | None:
    """Returns the byte ranges of finished videos; None if the file is of another run.

    Raises:
      ValueError: a line other than the last is damaged; names it.
    """
    if run_of(path) != run_id:
        return None
    places, end = {}, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # Drop a last line without an end: the run stopped while writing it.
            if not line.endswith(b"\n"):
                break
            record = _parsed(path, number, line)
            if number > 1:
                _check(path, number, record)
                head = f"[{record[0]}, [".encode()
                if not (line.startswith(head) and line.endswith(b"]]\n")):
                    raise ValueError(
                        _damaged(
                            path, number, "expected the spacing that evaluate writes"
                        )
                    )
                places[record[0]] = (end + len(head), end + len(line) - len(b"]]\n"))
            end += len(line)
    return _Partial(places, end)


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(_damaged(path, number, str(error))) from error


def _check(path: Path, number: int, record: Any) -> None:
    """Raises ValueError unless it is a video's id and its entries."""
    pair = isinstance(record, list) and len(record) == 2
    if not pair or type(record[0]) is not int or not isinstance(record[1], list):
        got = f"{record!r:.60}"
        raise ValueError(
            _damaged(path, number, f"expected [video, entries], got {got}")
        )
    if not all(isinstance(entry, dict) for entry in record[1]):
        raise ValueError(_damaged(path, number, "expected entries that are objects"))


def _damaged(path: Path, number: int, reason: str) -> str:
    return (
        f"{path}, line {number}: {reason}; delete the file to evaluate from the start"
    )
