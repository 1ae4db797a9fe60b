"""Keeps the recent paths of tracks, to draw as trails."""

from collections import deque
from collections.abc import Sequence

import numpy as np


class Trails:
    """Recent paths of the tracks of a video.

    Args:
      length: length of a path in frames; 0 = no paths.
    """

    def __init__(self, length: int) -> None:
        self._length, self._frame = length, 0
        self._seen: dict[int, deque[tuple[int, float, float]]] = {}

    def after(
        self, track_ids: Sequence[int] | np.ndarray, masks: np.ndarray
    ) -> dict[int, list[tuple[float, float]]]:
        """Adds a frame; returns the paths up to it, x and y by track id, oldest first.

        Args:
          track_ids: N ids, 1, 2, ..
          masks: bool [N, H, W]; the path goes through their centres of mass.
        """
        if not self._length:
            return {}
        self._frame += 1
        for number, mask in zip(track_ids, masks, strict=True):
            rows, columns = mask.sum(axis=1), mask.sum(axis=0)
            if not rows.any():
                continue
            y = rows @ np.arange(len(rows)) / rows.sum()
            x = columns @ np.arange(len(columns)) / columns.sum()
            points = self._seen.setdefault(int(number), deque())
            points.append((self._frame, float(x), float(y)))
        for number, points in list(self._seen.items()):
            while points and points[0][0] <= self._frame - self._length:
                points.popleft()
            if not points:
                del self._seen[number]
        return {
            number: [(x, y) for _, x, y in points]
            for number, points in self._seen.items()
        }
