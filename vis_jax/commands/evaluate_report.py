"""Writes the HTML report of an evaluation, with frames of its data set."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vis_jax.formats.disk import check_folder
from vis_jax.formats.tracks import Id

if TYPE_CHECKING:
    from data_pipeline.datasets.first_videos import FirstVideos


def check_report(path: str, *, shard: str | None) -> None:
    """Checks, before the work starts, that a report can be written.

    Args:
      path: output file.
      shard: shard of a job array, whose results are incomplete.

    Raises:
      ValueError: it cannot be written; names the flag.
    """
    check_folder("--report", path)
    if shard:
        raise ValueError(
            f"--report: expected it with --merge, once all shards are done, got"
            f" --shard {shard} with it"
        )


def write_report(
    path: str, folder: Path, dataset: "FirstVideos", numbers: dict
) -> None:
    """Writes the report, and prints its location.

    Args:
      path: the file, replaced if it exists.
      folder: folder with results.json and truth.json.
      dataset: data set of the videos.
      numbers: output of `vis_jax.scoring.score`.

    Raises:
      OSError: it cannot be written; names the file.
    """
    from vis_jax.evaluate.merge import RESULTS, TRUTH
    from vis_jax.formats.results_json import load_results, load_truth
    from vis_jax.report.scores import Settings, write_score_report

    truth = load_truth(folder / TRUTH)
    results = load_results(folder / RESULTS, truth)
    settings = Settings(frames=DatasetFrames(dataset))
    write_score_report(path, truth, results, numbers, settings)
    print(f"report        {path}")


class DatasetFrames:
    """Reads frames of a data set by video id.

    Args:
      dataset: the videos.
    """

    def __init__(self, dataset: "FirstVideos") -> None:
        self._dataset = dataset
        self._places = {one.video_id: i for i, one in enumerate(dataset.videos)}

    def __call__(self, video_id: Id, frame: int) -> np.ndarray:
        """Reads a frame: RGB uint8 [H, W, 3]."""
        place = self._places[int(video_id)]
        return self._dataset.read_frames(place, np.array([frame]))[0]
