"""What a system says clip by clip, put together to the tracks of one video."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.evaluate.masks import run_lengths


class VideoPrediction(NamedTuple):
    """Tracks of one video, best score first; N tracks, T frames."""

    labels: np.ndarray  # int32 [N], 0 .. K - 1
    scores: np.ndarray  # float32 [N]
    track_ids: np.ndarray  # int32 [N], 1, 2, ..; equal where one track has two classes
    # [N][T] run lengths {"size": [H, W], "counts": bytes} at the original size.
    segmentations: list[list[dict]]


class Track(NamedTuple):
    """One track as far as it is known."""

    class_probs: np.ndarray  # float32 [K]
    segmentations: dict[int, dict]  # run lengths by frame


class Tracks:
    """The tracks of one video, of which only its best ones are kept once they end.

    Args:
      top: the (track, class) pairs with the best probability that become the result; a
        track may appear with several classes.
    """

    def __init__(self, top: int):
        self._top = top
        self._live: dict[int, Track] = {}
        self._ended: list[Track] = []

    def update(self, track_ids: Sequence[int], class_probs: np.ndarray) -> None:
        """The tracks of a clip, by number, and what is now known of their classes.

        Tracks that are missing have ended.
        """
        ended = self._live.keys() - {int(number) for number in track_ids}
        self._ended += [self._live.pop(number) for number in sorted(ended)]
        # A pair among the best belongs to one of as many tracks with the best class.
        self._ended.sort(key=lambda track: -track.class_probs.max())
        del self._ended[self._top :]
        for number, probs in zip(track_ids, class_probs, strict=True):
            before = self._live.get(int(number), Track(probs, {}))
            self._live[int(number)] = before._replace(class_probs=probs)

    def add(self, number: int, frame: int, segmentation: dict) -> None:
        """The mask of a track of the last `update` in a frame."""
        self._live[number].segmentations[frame] = segmentation

    def result(self, frames: int, size: tuple[int, int]) -> VideoPrediction:
        """The best pairs, with an empty mask where a track has none.

        Args:
          frames: of the video.
          size: height and width of a mask in pixels.
        """
        tracks = [*self._live.values(), *self._ended]
        if not tracks:
            none = np.zeros(0, np.int32)
            return VideoPrediction(none, np.zeros(0, np.float32), none, [])
        probs = np.stack([track.class_probs for track in tracks])
        pairs = best_pairs(probs, self._top)
        # A system that knows a track's class gives nothing to the others.
        pairs = pairs[probs.reshape(-1)[pairs] > 0]
        rows = (pairs // probs.shape[1]).tolist()
        numbers = {row: i for i, row in enumerate(dict.fromkeys(rows), 1)}
        (empty,) = run_lengths(np.zeros((1, *size[::-1]), np.uint8))
        return VideoPrediction(
            (pairs % probs.shape[1]).astype(np.int32),
            probs.reshape(-1)[pairs],
            np.array([numbers[row] for row in rows], np.int32),
            [
                [tracks[i].segmentations.get(frame, empty) for frame in range(frames)]
                for i in rows
            ],
        )


def best_pairs(probs: np.ndarray, top: int) -> np.ndarray:
    """The `top` best (row, class) pairs of [N, K], as indices of the flat array."""
    return np.argsort(-probs.reshape(-1), kind="stable")[:top]
