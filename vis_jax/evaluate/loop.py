"""Evaluation over a data set, one video at a time, and the files it writes.

A run that is stopped goes on where it stopped: finished videos are lines of
`results.partial.jsonl`, which `results.json` replaces at the end.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.infer import Infer
from vis_jax.metrics.disk import naming
from vis_jax.metrics.json_checks import write_json
from vis_jax.metrics.results_json import video_entries, write_results

RESULTS, TRUTH, SCORES = "results.json", "truth.json", "scores.json"
PARTIAL = "results.partial.jsonl"
_CHUNK = 16  # frames read at once


def evaluate(
    dataset: Dataset,
    infer: Infer,
    output: str | os.PathLike,
    *,
    run_id: str,
    progress: bool = True,
) -> dict:
    """Predicts every video of a data set and scores the result.

    Args:
      dataset: annotated videos.
      infer: from frames to tracks; see `make_infer`.
      output: folder for `results.json`, `truth.json` and `scores.json`.
      run_id: what the predictions depend on, such as checkpoint and settings; only a
        stopped evaluation with the same one is continued.
      progress: whether to show a progress bar.

    Returns:
      The numbers of `vis_jax.score.score`, with tracking, per category and per video.

    Raises:
      OSError: a file cannot be written, as on a full disk; names the file. What is
        finished by then stays, for a later evaluation to continue.
    """
    # Both need pycocotools, which importing this module must not.
    from data_pipeline.datasets.to_ytvis import to_ytvis
    from vis_jax.score import Options, score

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_partial(folder / PARTIAL, run_id)
    _predict_rest(dataset, infer, folder / PARTIAL, run_id, done, progress)
    entries = [entry for video in dataset.videos for entry in done[video.video_id]]
    write_results(folder / RESULTS, entries)
    write_json(folder / TRUTH, to_ytvis(dataset), indent=None)
    report = score(
        folder / TRUTH,
        folder / RESULTS,
        folder / SCORES,
        options=Options(tracking=True, per_category=True, per_video=True),
    )
    (folder / PARTIAL).unlink()
    return report


def _predict_rest(dataset, infer, partial: Path, run_id, done, progress) -> None:
    """Adds the videos that are not done to `done` and to the file."""
    from tqdm import tqdm

    ids = [category.category_id for category in dataset.categories]
    bar = tqdm(dataset.videos, "evaluate", unit="video", disable=not progress)
    if not done:
        partial.unlink(missing_ok=True)
        _append(partial, {"run_id": run_id})
    for index, video in enumerate(bar):
        if video.video_id in done:
            continue
        found = infer(
            _frames(dataset, index),
            height=video.height,
            width=video.width,
            num_frames=video.length,
        )
        entries = video_entries(
            found.labels,
            found.scores,
            found.segmentations,
            video_id=video.video_id,
            category_ids=ids,
        )
        done[video.video_id] = entries
        _append(partial, [video.video_id, entries])


def _append(path: Path, record: object) -> None:
    """Adds a line."""
    with naming(path), path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _frames(dataset: Dataset, index: int) -> Iterable[np.ndarray]:
    """The frames of a video, a few in memory at a time."""
    length = dataset.videos[index].length
    for start in range(0, length, _CHUNK):
        ids = np.arange(start, min(start + _CHUNK, length))
        yield from dataset.read_frames(index, ids)


def _read_partial(path: Path, run_id: str) -> dict[int, list[dict]]:
    """Entries of finished videos; none if the file belongs to another run."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    # A line that was being written when the run stopped has no end: drop it.
    whole = content[: content.rfind(b"\n") + 1]
    records = [json.loads(line) for line in whole.splitlines()]
    if not records or records[0] != {"run_id": run_id}:
        return {}
    os.truncate(path, len(whole))
    return {video_id: entries for video_id, entries in records[1:]}
