"""Division of the videos of a data set among processes, and names of partial files.

The division depends on the lengths of the videos and the number of shares alone, so
processes that never meet agree on it.
"""

import heapq
import os
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

PARTIAL = "results.partial.jsonl"  # of a data set that is not shared out
_PARTIAL_OF_SHARE = re.compile(r"results\.partial-(\d+)-of-(\d+)\.jsonl")


class Share(NamedTuple):
    """One of several parts of a data set; written 3/16."""

    number: int  # 1 .. total
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


WHOLE = Share(1, 1)


def read_share(text: str) -> Share:
    """The share that "3/16" names.

    Raises:
      ValueError: it is no such text, or there is no such share.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    share = Share(int(found[1]), int(found[2])) if found else None
    if share is None or not 1 <= share.number <= share.total:
        raise ValueError(
            "--shard: expected NUMBER/COUNT, with numbers from 1 to COUNT, such as"
            f" 3/16, got {text}"
        )
    return share


def divide(weights: Sequence[int], count: int) -> list[list[int]]:
    """Shares of about the same weight: each item, heaviest first, goes to the lightest.

    Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: the largest share is at
    most 4/3 of the best possible one.

    Args:
      weights: of the items, such as frames of videos.
      count: of shares; some are empty if there are more of them than items.

    Returns:
      For each share the indices of its items, heaviest first.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    # Equal loads go by the number of items, then by the number of the share.
    loads = [(0, 0, number) for number in range(count)]
    for index in sorted(range(len(weights)), key=lambda i: -weights[i]):
        load, items, number = loads[0]
        shares[number].append(index)
        heapq.heapreplace(loads, (load + weights[index], items + 1, number))
    return shares


def balance(weights: Sequence[int], shares: Sequence[Sequence[int]]) -> float:
    """The weight of the largest share by that of the mean; 1 is perfect."""
    loads = [sum(weights[index] for index in share) for share in shares]
    return max(loads) * len(loads) / max(sum(loads), 1)


def summary(
    weights: Sequence[int], shares: Sequence[Sequence[int]], *, unit: str
) -> str:
    """The shares of videos in a line; their weights are in this unit."""
    return (
        f"{len(weights)} in {len(shares)} shares; by {unit} the largest is"
        f" {balance(weights, shares):.3f} of the mean"
    )


def partial_name(share: Share) -> str:
    """The file that has the finished videos of a share."""
    if share.total == 1:
        return PARTIAL
    width = len(str(share.total))
    return f"results.partial-{share.number:0{width}}-of-{share.total}.jsonl"


def partial_files(folder: str | os.PathLike) -> dict[Share, Path]:
    """The partial files of a folder, in order of total and number; {} if it is not."""
    folder = Path(folder)
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _PARTIAL_OF_SHARE.fullmatch(path.name)
        share = Share(int(match[1]), int(match[2])) if match else WHOLE
        if path.name == partial_name(share):
            found[share] = path
    return dict(sorted(found.items(), key=lambda pair: pair[0][::-1]))


def number_list(numbers: Iterable[int]) -> str:
    """Numbers in the form that `sbatch --array` takes: 2,5-7."""
    # In a run of numbers the difference to the position is the same.
    pairs = enumerate(sorted(numbers))
    runs = [[n for _, n in run] for _, run in groupby(pairs, lambda p: p[1] - p[0])]
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs
    )
