"""Merges the partial files of all shares into results and scores of a data set."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from data_pipeline.datasets.dataset import Dataset
from vis_jax.evaluate.finished import Finished, finished_ids, run_of
from vis_jax.evaluate.shares import (
    Share,
    divide,
    number_list,
    partial_files,
    partial_name,
)
from vis_jax.formats.disk import replacing
from vis_jax.formats.json_checks import write_json

RESULTS, TRUTH, SCORES = "results.json", "truth.json", "scores.json"


def merge(
    dataset: Dataset, folder: str | os.PathLike, *, run_id: str, count: int
) -> dict:
    """Scores a data set once every share is finished, and removes the partial files.

    Files of the same run with another number of shares are used as well.

    Args:
      dataset: annotated videos.
      folder: folder of the partial files; receives the results.
      run_id: identifies everything that the predictions depend on.
      count: number of shares.

    Returns:
      Metrics of `vis_jax.scoring.score`, with tracking, per category and per video.

    Raises:
      ValueError: shares are missing, unfinished, damaged, or still being written by
        another process; names them.
      OSError: a file cannot be written; names it. The partial files stay.
    """
    folder = Path(folder)
    shares = [Share(number, count) for number in range(1, count + 1)]
    available = partial_files(folder)
    missing = [share for share in shares if share not in available]
    with ExitStack() as stack:
        parts = [
            stack.enter_context(Finished(folder, run_id, share))
            for share in [*shares, *others(folder, run_id, count)]
            if share not in missing
        ]
        _check_complete(dataset, folder, parts, missing, count)
        return score_all(dataset, folder, parts)


def others(folder: Path, run_id: str, count: int) -> list[Share]:
    """Returns the run's shares of another total, as from a job on fewer hosts."""
    found = partial_files(folder).items()
    return [s for s, path in found if s.total != count and run_of(path) == run_id]


def finished_by_others(folder: Path, run_id: str, count: int) -> set[int]:
    """Returns the videos in the files of `others`."""
    names = [partial_name(share) for share in others(folder, run_id, count)]
    return {id_ for name in names for id_ in finished_ids(folder / name, run_id)}


def count_shares(folder: Path, run_id: str) -> int:
    """Returns the number of shares from the partial files in a folder.

    Raises:
      ValueError: there are none, or some are of another run or have another total;
        names the file.
    """
    found = partial_files(folder)
    if not found:
        raise ValueError(
            f"{folder}: expected the partial files of `evaluate --shard`, got none"
        )
    check_same_count(folder, found, next(reversed(found)).total)
    for share, path in found.items():
        if run_of(path) != run_id:
            raise ValueError(
                f"{path}: expected a share of this config and checkpoint, got one of"
                f" another; evaluate --shard {share} again, or delete it"
            )
    return next(iter(found)).total


def check_same_count(folder: Path, found: Sequence[Share] | dict, count: int) -> None:
    """Raises ValueError if a partial file has another total number of shares."""
    for share in found:
        if share.total != count:
            raise ValueError(
                f"{folder / partial_name(share)}: expected a share by {count}, as the"
                f" others are, got one by {share.total}; delete the wrong files"
            )


def _check_complete(
    dataset: Dataset,
    folder: Path,
    parts: Sequence[Finished],
    missing: Sequence[Share],
    count: int,
) -> None:
    """Raises ValueError unless the parts contain every video."""
    videos = dataset.videos
    unfinished = []
    shares = divide([video.length for video in videos], count)
    for number, indices in enumerate(shares, 1):
        ids = [videos[index].video_id for index in indices]
        done = sum(any(one in part for part in parts) for one in ids)
        if done < len(ids) and Share(number, count) not in missing:
            unfinished.append((number, f"{number} ({done} of {len(ids)} videos)"))
    if not (missing or unfinished):
        return
    lines = []
    if missing:
        lines.append(f"missing {number_list(share.number for share in missing)}")
    if unfinished:
        lines.append(f"unfinished {', '.join(text for _, text in unfinished)}")
    raise ValueError(
        f"{folder}: expected {count} finished shares, got"
        f" {count - len(missing) - len(unfinished)}: {'; '.join(lines)}"
    )


def score_all(dataset: Dataset, folder: Path, parts: Sequence[Finished]) -> dict:
    """Writes `results.json`, `truth.json` and `scores.json`; removes the parts.

    Args:
      dataset: annotated videos.
      folder: to write to.
      parts: partial files that together contain every video.

    Returns:
      Metrics of `vis_jax.scoring.score`, with tracking, per category and per video.

    Raises:
      OSError: a file cannot be written, as on a full disk; names the file. Finished
        videos stay, so that a later evaluation can resume.
    """
    # Imported late: both need pycocotools, which this module must import without.
    from data_pipeline.write.annotations import to_ytvis
    from vis_jax.scoring import Options, score

    with replacing(folder / RESULTS) as file:
        file.writelines(_results(dataset, parts))
    write_json(folder / TRUTH, to_ytvis(dataset), indent=None)
    report = score(
        folder / TRUTH,
        folder / RESULTS,
        folder / SCORES,
        options=Options(tracking=True, per_category=True, per_video=True),
    )
    for part in parts:
        part.remove()
    return report


def _results(dataset: Dataset, parts: Sequence[Finished]) -> Iterator[str]:
    """Yields the text of the results file, one video at a time, in data set order."""
    yield "["
    first = True
    for video in dataset.videos:
        part = next(part for part in parts if video.video_id in part)
        entries = part.entries(video.video_id)
        if entries:
            yield "" if first else ", "
            yield entries
            first = False
    yield "]\n"
