"""The videos of an evaluation that are finished, on disk, so that it can go on.

They are lines of `results.partial.jsonl`, which `results.json` replaces at the end.
"""

import json
import os
from pathlib import Path
from typing import Any

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.assemble import VideoPrediction
from vis_jax.metrics.disk import naming
from vis_jax.metrics.json_checks import write_json
from vis_jax.metrics.results_json import video_entries, write_results

RESULTS, TRUTH, SCORES = "results.json", "truth.json", "scores.json"
PARTIAL = "results.partial.jsonl"


class Finished:
    """Entries of the finished videos of one evaluation.

    Args:
      folder: made if there is none.
      run_id: what the predictions depend on, such as checkpoint and settings; videos
        of another one do not count, and are removed.
    """

    def __init__(self, folder: str | os.PathLike, run_id: str):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / PARTIAL
        self._entries = _read_partial(self._path, run_id)
        if not self._entries:
            self._path.unlink(missing_ok=True)
            self._append({"run_id": run_id})

    def __contains__(self, video_id: int) -> bool:
        return video_id in self._entries

    def add(self, dataset: Dataset, index: int, found: VideoPrediction) -> None:
        """Adds what is found in a video of the data set.

        Raises:
          OSError: the file cannot be written; names it.
        """
        video_id = dataset.videos[index].video_id
        entries = video_entries(
            found.labels,
            found.scores,
            found.segmentations,
            video_id=video_id,
            category_ids=[category.category_id for category in dataset.categories],
        )
        self._entries[video_id] = entries
        self._append([video_id, entries])

    def score(self, dataset: Dataset) -> dict:
        """Writes `results.json`, `truth.json` and `scores.json` of all its videos.

        Returns:
          The numbers of `vis_jax.score.score`, with tracking, per category and per
          video.

        Raises:
          OSError: a file cannot be written, as on a full disk; names the file. What is
            finished stays, for a later evaluation to continue.
        """
        # Both need pycocotools, which importing this module must not.
        from data_pipeline.datasets.to_ytvis import to_ytvis
        from vis_jax.score import Options, score

        videos = dataset.videos
        entries = [entry for video in videos for entry in self._entries[video.video_id]]
        write_results(self.folder / RESULTS, entries)
        write_json(self.folder / TRUTH, to_ytvis(dataset), indent=None)
        report = score(
            self.folder / TRUTH,
            self.folder / RESULTS,
            self.folder / SCORES,
            options=Options(tracking=True, per_category=True, per_video=True),
        )
        self._path.unlink()
        return report

    def _append(self, record: object) -> None:
        """Adds a line."""
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _read_partial(path: Path, run_id: str) -> dict[int, list[dict]]:
    """Entries of finished videos; none if the file belongs to another run.

    Raises:
      ValueError: a line other than the last is damaged; names it.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    # A line that was being written when the run stopped has no end: drop it.
    whole = content[: content.rfind(b"\n") + 1]
    records = [_parsed(path, *pair) for pair in enumerate(whole.split(b"\n")[:-1], 1)]
    if not records or records[0] != {"run_id": run_id}:
        return {}
    for number, record in enumerate(records[1:], 2):
        _check(path, number, record)
    os.truncate(path, len(whole))
    return {video_id: entries for video_id, entries in records[1:]}


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
