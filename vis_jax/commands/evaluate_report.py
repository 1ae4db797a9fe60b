"""The HTML page of an evaluation, with the frames of its data set."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vis_jax.formats.disk import check_folder
from vis_jax.formats.tracks import Id

if TYPE_CHECKING:
    from data_pipeline.datasets.first_videos import FirstVideos


def check_report(path: str, *, shard: str | None) -> None:
    """Checks that a page can be written, before the work rather than after it.

    Args:
      path: of the page.
      shard: of a job array; its results are not complete.

    Raises:
      ValueError: it cannot; names the flag.
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
    """Writes the page, and prints where it is.

    Args:
      path: the file, replaced if it exists.
      folder: has results.json and truth.json.
      dataset: whose videos they are of.
      numbers: of `vis_jax.scoring.score`.

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
    """Reads the frames of a data set by the ids of its videos.

    Args:
      dataset: the videos.
    """

    def __init__(self, dataset: "FirstVideos") -> None:
        self._dataset = dataset
        self._places = {one.video_id: i for i, one in enumerate(dataset.videos)}

    def __call__(self, video_id: Id, frame: int) -> np.ndarray:
        """uint8 [H, W, 3], RGB."""
        place = self._places[int(video_id)]
        return self._dataset.read_frames(place, np.array([frame]))[0]
