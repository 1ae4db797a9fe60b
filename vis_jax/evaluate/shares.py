"""Divides the videos of a data set among processes, and names partial files.

The division depends only on the lengths of the videos and the number of shares, so
processes agree on it without communicating.
"""

import heapq
import os
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

PARTIAL = "results.partial.jsonl"  # for evaluation by a single process
_PARTIAL_OF_SHARE = re.compile(r"results\.partial-(\d+)-of-(\d+)\.jsonl")


class Share(NamedTuple):
    """One of several parts of a data set, such as 3/16."""

    number: int  # 1 .. total
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


WHOLE = Share(1, 1)


def read_share(text: str) -> Share:
    """Parses a share such as "3/16".

    Raises:
      ValueError: the text has another form, or the number exceeds the total.
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
    """Divides items into shares of similar weight.

    Each item, heaviest first, goes to the lightest share. Graham, "Bounds on
    Multiprocessing Timing Anomalies", 1969: the largest share is at most 4/3 of the
    best possible one.

    Args:
      weights: weights of the items, such as frames of videos.
      count: number of shares; some are empty if it exceeds the number of items.

    Returns:
      The indices of each share's items, heaviest first.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    # Ties go to the share with fewer items, then to the lower index.
    loads = [(0, 0, number) for number in range(count)]
    for index in sorted(range(len(weights)), key=lambda i: -weights[i]):
        load, items, number = loads[0]
        shares[number].append(index)
        heapq.heapreplace(loads, (load + weights[index], items + 1, number))
    return shares


def balance(weights: Sequence[int], shares: Sequence[Sequence[int]]) -> float:
    """Returns the largest share's weight divided by the mean; 1 is perfect."""
    loads = [sum(weights[index] for index in share) for share in shares]
    return max(loads) * len(loads) / max(sum(loads), 1)


def summary(
    weights: Sequence[int], shares: Sequence[Sequence[int]], *, unit: str
) -> str:
    """Describes the shares in one line, with their weights in this unit."""
    return (
        f"{len(weights)} in {len(shares)} shares; by {unit} the largest is"
        f" {balance(weights, shares):.3f} of the mean"
    )


def partial_name(share: Share) -> str:
    """Returns the file name for the finished videos of a share."""
    if share.total == 1:
        return PARTIAL
    width = len(str(share.total))
    return f"results.partial-{share.number:0{width}}-of-{share.total}.jsonl"


def share_of(name: str) -> Share | None:
    """Returns the share whose partial file has this name; None if it is none."""
    match = _PARTIAL_OF_SHARE.fullmatch(name)
    share = Share(int(match[1]), int(match[2])) if match else WHOLE
    return share if name == partial_name(share) else None


def partial_files(folder: str | os.PathLike) -> dict[Share, Path]:
    """Returns a folder's partial files, ordered by total and number.

    {} if the folder does not exist.
    """
    folder = Path(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    found = {share: path for path in paths if (share := share_of(path.name))}
    return dict(sorted(found.items(), key=lambda pair: pair[0][::-1]))


def number_list(numbers: Iterable[int]) -> str:
    """Formats numbers as `sbatch --array` takes them: 2,5-7."""
    # Consecutive numbers have the same difference to their position.
    pairs = enumerate(sorted(numbers))
    runs = [[n for _, n in run] for _, run in groupby(pairs, lambda p: p[1] - p[0])]
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs
    )
