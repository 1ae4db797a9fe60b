"""Filters detected objects by class or track."""

import difflib
from collections.abc import Sequence

import numpy as np

from vis_jax.results.frame import FrameResult, LiveTracks


class ObjectFilter:
    """Keeps objects of chosen classes or tracks.

    Args:
      names: all class names, by label.
      classes: classes to keep; () = all. An object counts under its best class so far;
        the probabilities of other classes are zeroed.
      tracks: track ids to keep; () = all.

    Raises:
      ValueError: there is no such class.
    """

    def __init__(
        self, names: Sequence[str], classes: Sequence[str], tracks: Sequence[int]
    ) -> None:
        for name in classes:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"--classes: expected some of {', '.join(names)}, got {name}{hint}"
                )
        self._all = not classes and not tracks
        self._classes = np.isin(names, classes or names)
        self._tracks = np.asarray(tracks, np.int32) if tracks else None
        self._last: tuple[LiveTracks, LiveTracks, np.ndarray] | None = None

    def of(self, found: FrameResult) -> FrameResult:
        """Returns the frame with only the chosen objects."""
        if self._all:
            return found
        tracks, kept = self._of_tracks(found.tracks)
        positions = np.flatnonzero(kept[found.rows])
        masks = [found.segmentations[i] for i in positions]
        rows = found.rows[positions]
        return found._replace(tracks=tracks, rows=rows, segmentations=masks)

    def _of_tracks(self, tracks: LiveTracks) -> tuple[LiveTracks, np.ndarray]:
        """Returns the tracks with excluded classes zeroed, and a mask of those kept."""
        if self._last is None or self._last[0] is not tracks:
            kept = np.ones(len(tracks.ids), bool)
            if len(tracks.ids):
                kept = self._classes[tracks.class_probs.argmax(axis=1)]
            if self._tracks is not None:
                kept &= np.isin(tracks.ids, self._tracks)
            probs = tracks.class_probs * (self._classes & kept[:, None])
            changed = tracks._replace(class_probs=probs)
            self._last = tracks, changed, kept
        return self._last[1], self._last[2]
