"""Holds out a reproducible share of the videos for validation.

Evaluation servers keep the ground truth of their splits, so published ablations hold
out videos of the training set.
"""

import os
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from vis_jax.formats.json_checks import write_json
from vis_jax.formats.tracks import Id, TruthFile
from vis_jax.formats.truth_json import parse_truth
from vis_jax.formats.unpack import read_json


class Split(NamedTuple):
    """Video ids, ascending."""

    train: list[Id]
    held_out: list[Id]


def split_videos(truth: TruthFile, *, num_held_out: int, seed: int) -> Split:
    """Holds out videos so that each category keeps its share on both sides.

    Sechidis et al., "On the Stratification of Multi-Label Data", ECML 2011: the
    rarest category first, each video to the side that lacks that category most.

    Args:
      truth: annotated videos; their order has no effect.
      num_held_out: number of videos.
      seed: selects the split.

    Raises:
      ValueError: `num_held_out` is below 1 or leaves no video, or there are fewer than
        two videos.
    """
    videos = sorted(truth.videos)
    if len(videos) < 2:
        raise ValueError(
            f"{truth.name}: videos: expected at least 2 videos, got {len(videos)}"
        )
    if not 1 <= num_held_out < len(videos):
        raise ValueError(
            f"num_held_out: expected 1 .. {len(videos) - 1} of the {len(videos)} videos"
            f" of {truth.name}, got {num_held_out}"
        )
    share = np.array([len(videos) - num_held_out, num_held_out]) / len(videos)
    holders = _holders(truth)
    lacking = {category: share * len(ids) for category, ids in holders.items()}
    room = np.array([len(videos) - num_held_out, num_held_out], float)
    waiting = np.random.default_rng(seed).permutation(videos).tolist()
    sides: tuple[list[Id], list[Id]] = ([], [])
    while waiting:
        category = _rarest(holders, set(waiting))
        candidates = [v for v in waiting if category is None or v in holders[category]]
        for video_id in candidates:
            need = room if category is None else lacking[category]
            open_sides = [side for side in (0, 1) if room[side] > 0]
            side = max(open_sides, key=lambda s: (need[s], room[s]))
            sides[side].append(video_id)
            room[side] -= 1
            for other, ids in holders.items():
                lacking[other][side] -= video_id in ids
        placed = set(candidates)
        waiting = [video_id for video_id in waiting if video_id not in placed]
    return Split(sorted(sides[0]), sorted(sides[1]))


def write_split(
    truth_path: str | os.PathLike,
    output_path: str | os.PathLike,
    *,
    num_held_out: int,
    seed: int,
) -> Split:
    """Writes the ids of a split as JSON: seed, train, held_out.

    Raises:
      FormatError: the ground truth is malformed.
      ValueError: as in `split_videos`.
    """
    truth = _read(truth_path)
    split = split_videos(truth, num_held_out=num_held_out, seed=seed)
    write_json(output_path, {"seed": seed} | split._asdict(), indent=None)
    return split


def _read(path: str | os.PathLike) -> TruthFile:
    """Reads the ground truth, without the fields needed only for scoring."""
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            masks = entry.get("segmentations")
            absent = [None] * len(masks) if isinstance(masks, list) else []
            entry.setdefault("areas", absent)
            entry.setdefault("iscrowd", 0)
    return parse_truth(content, name=str(path))


def _holders(truth: TruthFile) -> dict[Id, set[Id]]:
    """Returns the videos that contain each category."""
    holders = defaultdict(set)
    for track in truth.tracks:
        holders[track.category_id].add(track.video_id)
    return dict(holders)


def _rarest(holders: dict[Id, set[Id]], waiting: set[Id]) -> Id | None:
    """Returns the rarest category of the waiting videos; None if they have none."""
    left = {category: len(ids & waiting) for category, ids in holders.items()}
    counts = [(count, category) for category, count in left.items() if count]
    if not counts:
        return None
    return min(counts, key=lambda pair: (pair[0], isinstance(pair[1], str), pair[1]))[1]
