"""Stores finished videos of an evaluation on disk, so that it can be resumed.

They are lines of `results.partial.jsonl`, or of one such file for each share of the
videos; `results.json` replaces them at the end, see `vis_jax.evaluate.merge`.
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
    """Entries of the finished videos of one evaluation, or of one share of it.

    A context manager, which keeps other processes from the file.

    Args:
      folder: made if there is none.
      run_id: what the predictions depend on, such as checkpoint and settings; videos
        of another one do not count, and are removed.
      share: which part of the videos.
    """

    def __init__(
        self, folder: str | os.PathLike, run_id: str, share: Share = WHOLE
    ) -> None:
        self.folder, self.share = Path(folder), share
        self._path, self._run_id = self.folder / partial_name(share), run_id
        # The bytes of the file that the entries of a video are: first, and after last.
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "Finished":
        """Reads what is finished.

        Raises:
          ValueError: the file is damaged, or another process writes to it; names it.
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
        """Adds what is found in a video of the data set.

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
        """The entries of a finished video as JSON, with commas and without brackets."""
        begin, end = self._places[video_id]
        with self._path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).decode()

    def remove(self) -> None:
        """Removes the file, once its entries are elsewhere."""
        self._path.unlink()


def run_of(path: Path) -> str | None:
    """The run that a partial file is of; None if it has no first line yet.

    Raises:
      ValueError: the line is damaged.
    """
    with path.open("rb") as file:
        line = file.readline()
    record = _parsed(path, 1, line) if line.endswith(b"\n") else None
    return record.get("run_id") if isinstance(record, dict) else None


def finished_ids(path: Path, run_id: str) -> set[int]:
    """The videos in a partial file of a run, which another process may be writing.

    Raises:
      ValueError: a line other than the last is damaged; names it.
    """
    partial = _read_partial(path, run_id)
    return set() if partial is None else set(partial.places)


def _locked(path: Path) -> int:
    """A descriptor of the file that keeps others from it until it is closed.

    Raises:
      ValueError: another one has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"{path}: expected no other evaluation at work there; wait for it to end,"
            " or give another --output"
        ) from error
    except OSError:  # a file system that knows no locks
        pass
    return descriptor


class _Partial(NamedTuple):
    """Content of a partial file."""

    # The bytes that the entries of a video are: first, and after last.
    places: dict[int, tuple[int, int]]
    end: int  # bytes up to the end of the last whole line


def _read_partial(path: Path, run_id: str) -> _Partial | None:
    """Positions of the entries of finished videos; None if the file is of another run.

    Raises:
      ValueError: a line other than the last is damaged; names it.
    """
    if run_of(path) != run_id:
        return None
    places, end = {}, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # A line that was being written when the run stopped has no end: drop it.
            if not line.endswith(b"\n"):
                break
            record = _parsed(path, number, line)
            if number > 1:
                _check(path, number, record)
                head = f"[{record[0]}, [".encode()
                if not (line.startswith(head) and line.endswith(b"]]\n")):
                    raise ValueError(_damaged(path, number, "expected other spaces"))
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
