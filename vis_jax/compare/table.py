"""Compares several results on the same videos, each a row of a table.

Videos are processed one at a time: the detector runs once, unless its detections are
cached, then every row that lacks the video. An interrupted run resumes; finished rows
are not run again, so that more rows can be added later.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from data_pipeline.datasets.dataset import Dataset, Video, VideoTruth
from vis_jax.compare.detections import Find, VideoDetections, cached, read_whole
from vis_jax.evaluate.clips import Piece
from vis_jax.evaluate.finished import Finished
from vis_jax.evaluate.loop import video_frames
from vis_jax.evaluate.merge import RESULTS, score_all
from vis_jax.formats.json_checks import write_json
from vis_jax.results.video import VideoResult
from vis_jax.systems.system import TestSettings

COMPARE, CACHE = "compare.json", "detections"


class VideoInputs(NamedTuple):
    """Video with its detections and its ground truth."""

    piece: Piece
    detections: VideoDetections
    truth: VideoTruth


@runtime_checkable
class Predict(Protocol):
    """Predicts the tracks of a video from its detections."""

    def __call__(self, seen: VideoInputs) -> VideoResult:
        """Returns the tracks."""
        ...


@runtime_checkable
class PredictFrames(Protocol):
    """Predicts the tracks of a video from its frames."""

    def __call__(self, frames: Iterator[np.ndarray], video: Video, /) -> VideoResult:
        """Returns the tracks.

        Args:
          frames: uint8 [H, W, 3] in order.
          video: its metadata.
        """
        ...


class Row(NamedTuple):
    """Row of a table."""

    table: str
    name: str  # also of its folder
    run_id: str  # identifies what the row depends on
    predict: Predict | None = None  # from detections
    run: PredictFrames | None = None  # from frames
    missing: str = ""  # reason if there is neither


def compare(
    dataset: Dataset,
    rows: Sequence[Row],
    output: str | os.PathLike,
    *,
    find: Find | None,
    test: TestSettings,
    run_id: str,
    progress: bool = True,
) -> dict:
    """Computes every row, and writes `compare.json`.

    Args:
      dataset: annotated videos.
      rows: with distinct names; each gets a folder for its results and scores.
      output: parent folder of the rows' folders.
      find: detects the objects of a video; None if no row needs detections.
      test: settings for reading videos; see `read_whole`.
      run_id: identifies what the detections depend on.
      progress: whether to show a progress bar.

    Returns:
      The content of the file: by table and row, the metrics of `scoring.score`, or
      `missing`, a reason. Earlier tables of the same detections are kept.

    Raises:
      OSError: a file cannot be written; names it.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    tables, waiting = _plan(rows, folder, run_id)
    report = {"run_id": run_id, "tables": tables}

    def see(index: int) -> VideoInputs:
        if find is None:
            raise ValueError("find: expected one, as rows are made from detections")
        piece = read_whole(video_frames(dataset, index), test)
        path = folder / CACHE / f"{dataset.videos[index].video_id}.npz"
        detections = cached(path, run_id, lambda: find(piece))
        return VideoInputs(piece, detections, dataset.truth(index))

    with ExitStack() as stack:
        for _, finished in waiting:
            stack.enter_context(finished)
        _predict(dataset, waiting, see, progress)
        for row, finished in waiting:
            tables[row.table][row.name] = _scored(dataset, row, finished)
            write_json(folder / COMPARE, report, indent=1)
    write_json(folder / COMPARE, report, indent=1)
    return report


def _scored(dataset: Dataset, row: Row, finished: Finished) -> dict:
    """Scores a finished row; without the metrics by video and category."""
    numbers = score_all(dataset, finished.folder, [finished])
    left_out = ("videos", "categories")
    own = {name: x for name, x in numbers.items() if name not in left_out}
    return {"run_id": row.run_id} | own


def _plan(
    rows: Sequence[Row], folder: Path, run_id: str
) -> tuple[dict[str, dict], list[tuple[Row, Finished]]]:
    """Returns the tables so far, and the unfinished rows."""
    old = _read_tables(folder / COMPARE, run_id)
    # A table has the rows requested now; varied settings add to the earlier rows.
    kept = {row.table: old.get(row.table, {}) if row.run else {} for row in rows}
    tables: dict[str, dict] = old | {name: dict(one) for name, one in kept.items()}
    waiting = []
    for row in rows:
        known = old.get(row.table, {}).get(row.name, {})
        done = (folder / row.name / RESULTS).exists()
        if not (row.predict or row.run):
            known = {"missing": row.missing}
        elif known.get("run_id") != row.run_id or not done:
            known = {"missing": "not finished"}
            waiting.append((row, Finished(folder / row.name, row.run_id)))
        tables[row.table][row.name] = known
    return tables, waiting


def _predict(dataset: Dataset, waiting: list, see: Callable, progress: bool) -> None:
    """Runs the rows on the videos they still lack."""
    from tqdm import tqdm

    bar = tqdm(dataset.videos, "compare", unit="video", disable=not progress)
    for index, video in enumerate(bar):
        lacking = [pair for pair in waiting if video.video_id not in pair[1]]
        seen = see(index) if any(row.predict for row, _ in lacking) else None
        for row, finished in lacking:
            if row.run:
                found = row.run(video_frames(dataset, index), video)
            else:
                found = row.predict(seen)
            finished.add(dataset, index, found)


def _read_tables(path: Path, run_id: str) -> dict:
    """Reads the tables of an earlier run on the same detections.

    Raises:
      ValueError: the file is not JSON.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got {error}; delete it") from error
    same = isinstance(content, dict) and content.get("run_id") == run_id
    return content.get("tables", {}) if same else {}
