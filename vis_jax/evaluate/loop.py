"""Evaluates a system on a data set and writes the results.

An interrupted run resumes where it stopped; see `Finished`. With several processes each
predicts a share of the videos, and one of them merges the results; within a process
each device has its own stream.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.finished import Finished
from vis_jax.evaluate.merge import finished_by_others, merge
from vis_jax.evaluate.shares import WHOLE, Share, divide
from vis_jax.evaluate.spread import Left, leaving, spread
from vis_jax.results.collect import collect
from vis_jax.results.frame import Stream
from vis_jax.results.video import VideoResult

_CHUNK = 16  # frames read at once


def evaluate(
    dataset: Dataset,
    stream: Stream | Sequence[Stream],
    output: str | os.PathLike,
    *,
    top: int,
    run_id: str,
    progress: bool = True,
    tell: Callable[[int], None] = lambda count: None,
) -> dict:
    """Predicts every video of a data set and scores the result.

    Args:
      dataset: annotated videos.
      stream: tracks the objects of a video; see `make_stream`. Several streams work at
        once, each on its own device.
      output: folder for `results.json`, `truth.json` and `scores.json`.
      top: number of tracks to keep per video, best scores first.
      run_id: identifies what predictions depend on, such as checkpoint and settings;
        only an interrupted evaluation with the same id is resumed.
      progress: whether to show a progress bar.
      tell: called with the number of finished videos, at the start and after each.

    Returns:
      Metrics of `vis_jax.scoring.score`, with tracking, per category and per video.

    Raises:
      OSError: a file cannot be written, as on a full disk; names the file. Finished
        videos stay, so that a later evaluation can resume.
    """
    from tqdm import tqdm

    streams = stream if isinstance(stream, Sequence) else [stream]
    total = len(dataset.videos)
    with tqdm(None, "evaluate", total, unit="video", disable=not progress) as bar:

        def show(count: int) -> None:
            bar.update(count - bar.n)
            tell(count)

        evaluate_share(dataset, streams, output, top=top, run_id=run_id, tell=show)
    return merge(dataset, output, run_id=run_id, count=1)


def evaluate_share(
    dataset: Dataset,
    streams: Sequence[Stream],
    output: str | os.PathLike,
    *,
    top: int,
    run_id: str,
    share: Share = WHOLE,
    tell: Callable[[int], None],
) -> None:
    """Predicts the videos of one share; `merge` collects them.

    Args:
      dataset, output, top, run_id: as in `evaluate`; the same for all shares.
      streams: each tracks the objects of a video on its own device.
      share: part of the videos; see `divide`.
      tell: called with the number of finished videos of the share, at the start and
        after each video.

    Raises:
      ValueError: another process works on the share, or its file is damaged.
      OSError: a file cannot be written; names it.
    """
    shares = divide([video.length for video in dataset.videos], share.total)
    own = shares[share.number - 1]
    known = finished_by_others(Path(output), run_id, share.total)
    with Finished(output, run_id, share) as finished:
        videos = [(index, dataset.videos[index].video_id) for index in own]
        waiting = [i for i, id_ in videos if not (id_ in finished or id_ in known)]
        count = len(own) - len(waiting)
        tell(count)
        workers = [
            partial(_predict, dataset, stream, top, finished.folder)
            for stream in streams
        ]
        for index, found in spread(waiting, workers):
            finished.add(dataset, index, found)
            count += 1
            tell(count)


def _predict(
    dataset: Dataset,
    stream: Stream,
    top: int,
    folder: Path,
    index: int,
    left: Left,
) -> VideoResult:
    """Returns the tracks of a video; spools masks to a temporary file in the folder."""
    video = dataset.videos[index]
    frames = leaving(stream, left)(video_frames(dataset, index))
    return collect(frames, top, video.length, (video.height, video.width), folder)


def video_frames(dataset: Dataset, index: int) -> Iterator[np.ndarray]:
    """Yields the frames of a video, with a few in memory at a time."""
    length = dataset.videos[index].length
    for start in range(0, length, _CHUNK):
        ids = np.arange(start, min(start + _CHUNK, length))
        yield from dataset.read_frames(index, ids)
