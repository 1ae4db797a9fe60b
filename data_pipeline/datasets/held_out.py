"""Selects videos of a training set to hold out for evaluation."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.datasets.dataset import Video
from data_pipeline.errors import DataError

PARTS = ("train", "held_out", "all")


def videos_of_part(
    videos: Sequence[Video],
    held_out: Sequence[str | int],
    part: str,
    file: str | Path,
) -> list[int]:
    """Returns the indices of the videos of a part.

    Args:
      videos: all videos.
      held_out: names or ids of held-out videos.
      part: one of `PARTS`.
      file: source of the videos, for messages.

    Raises:
      ValueError: an unknown part.
      DataError: a held-out video is missing, or the part has no videos.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {PARTS}, got {part!r}")
    apart = _held_out_ids(videos, held_out, file)
    keep = [
        k
        for k, video in enumerate(videos)
        if part == "all" or (video.video_id in apart) == (part == "held_out")
    ]
    if not keep:
        expected = f"videos in part {part!r}"
        if part == "held_out":
            expected += (
                " (data.held_out names some; data.held_out_share holds out videos whose"
                " categories others have, too; test.split=train evaluates on those that"
                " are trained on)"
            )
        raise DataError(file, expected=expected, got="none")
    return keep


def draw_held_out(
    videos: Sequence[Video], labels: Sequence[Collection[int]], share: float
) -> tuple[int, ...]:
    """Draws the ids of held-out videos, deterministically for the same video list.

    The remaining videos keep every category, so that few or no videos may qualify.
    Videos without objects also remain.

    Args:
      videos: all videos.
      labels: labels of the objects of each video.
      share: fraction of the videos, in [0, 1]; at least one video if above 0.
    """
    if not share:
        return ()
    wanted = max(1, round(share * len(videos)))
    left = Counter(label for some in labels for label in set(some))
    chosen: list[int] = []
    for k in np.random.default_rng(0).permutation(len(videos)):
        own = set(labels[k])
        if own and len(chosen) < wanted and all(left[label] > 1 for label in own):
            chosen.append(videos[k].video_id)
            left.subtract(own)
    return tuple(chosen)


def _held_out_ids(videos: Sequence, held_out: Sequence, file: str | Path) -> set[int]:
    """Resolves ids or names of videos to ids."""
    if isinstance(held_out, str):
        raise ValueError(f"held_out: expected a sequence, got the text {held_out!r}")
    apart = set()
    for wanted in held_out:
        found = {v.video_id for v in videos if wanted in (v.video_id, v.name)}
        if not found:
            expected = "names or ids of videos"
            raise DataError(file, field="held_out", expected=expected, got=wanted)
        apart |= found
    return apart
