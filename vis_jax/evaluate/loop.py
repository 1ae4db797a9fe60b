"""Evaluation over a data set, one video at a time, and the files it writes.

A run that is stopped goes on where it stopped; see `Finished`.
"""

import os
from collections.abc import Iterator

import numpy as np

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.finished import PARTIAL, RESULTS, SCORES, TRUTH, Finished
from vis_jax.results.collect import collect
from vis_jax.results.stream import Stream

__all__ = ["PARTIAL", "RESULTS", "SCORES", "TRUTH", "evaluate", "video_frames"]

_CHUNK = 16  # frames read at once


def evaluate(
    dataset: Dataset,
    stream: Stream,
    output: str | os.PathLike,
    *,
    top: int,
    run_id: str,
    progress: bool = True,
) -> dict:
    """Predicts every video of a data set and scores the result.

    Args:
      dataset: annotated videos.
      stream: finds the objects of a video; see `make_stream`.
      output: folder for `results.json`, `truth.json` and `scores.json`.
      top: tracks of a result, those with the best scores.
      run_id: what the predictions depend on, such as checkpoint and settings; only a
        stopped evaluation with the same one is continued.
      progress: whether to show a progress bar.

    Returns:
      The numbers of `vis_jax.scoring.score`, with tracking, per category and per video.

    Raises:
      OSError: a file cannot be written, as on a full disk; names the file. What is
        finished by then stays, for a later evaluation to continue.
    """
    from tqdm import tqdm

    with Finished(output, run_id) as finished:
        bar = tqdm(dataset.videos, "evaluate", unit="video", disable=not progress)
        for index, video in enumerate(bar):
            if video.video_id in finished:
                continue
            found = collect(
                stream(video_frames(dataset, index)),
                top,
                video.length,
                (video.height, video.width),
                finished.folder,
            )
            finished.add(dataset, index, found)
        return finished.score(dataset)


def video_frames(dataset: Dataset, index: int) -> Iterator[np.ndarray]:
    """The frames of a video, a few in memory at a time."""
    length = dataset.videos[index].length
    for start in range(0, length, _CHUNK):
        ids = np.arange(start, min(start + _CHUNK, length))
        yield from dataset.read_frames(index, ids)
