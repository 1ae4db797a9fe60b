"""Compares an export with its model on one clip."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vis_jax.results.frame import FrameResult


class Tolerance(NamedTuple):
    """Permitted deviation of an export from its model.

    Attributes:
      scores: maximum difference of a class probability, in [0, 1].
      pixels: minimum fraction of equal mask pixels, in [0, 1].
    """

    scores: float
    pixels: float


EXACT = Tolerance(scores=0.0, pixels=1.0)


class Agreement(NamedTuple):
    """Result of a comparison.

    Attributes:
      frames: number of frames compared.
      tracks: number of tracks found by either side.
      scores: largest difference of a class probability; a track missing on one side has
        probabilities of 0 there.
      pixels: intersection over union of the masks, summed over tracks and frames; 1 if
        there are no mask pixels.
    """

    frames: int
    tracks: int
    scores: float
    pixels: float

    def within(self, tolerance: Tolerance) -> bool:
        """Returns whether the differences are within the tolerance; NaN never is."""
        return self.scores <= tolerance.scores and self.pixels >= tolerance.pixels


def compare(found: Iterable[FrameResult], expected: Iterable[FrameResult]) -> Agreement:
    """Compares the results of two runs on the same frames, track by track.

    Args:
      found, expected: all frames, in order.

    Raises:
      ValueError: the numbers of frames differ.
    """
    frames, ids, scores, both, either = 0, set(), 0.0, 0, 0
    for one, other in zip(found, expected, strict=True):
        frames += 1
        ids |= {*one.tracks.ids.tolist(), *other.tracks.ids.tolist()}
        scores = _larger(scores, _score_difference(one, other))
        common, union = _pixels(one, other)
        both, either = both + common, either + union
    return Agreement(frames, len(ids), scores, both / either if either else 1.0)


def _larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _score_difference(one: FrameResult, other: FrameResult) -> float:
    """Returns the largest difference of a class probability in a frame."""
    tracks = [
        dict(zip(frame.tracks.ids.tolist(), frame.tracks.class_probs, strict=True))
        for frame in (one, other)
    ]
    classes = one.tracks.class_probs.shape[1]
    absent = np.zeros(classes, np.float32)
    differences = [
        float(np.abs(tracks[0].get(i, absent) - tracks[1].get(i, absent)).max())
        for i in tracks[0].keys() | tracks[1].keys()
    ]
    return float(np.max(differences)) if differences and classes else 0.0


def _pixels(one: FrameResult, other: FrameResult) -> tuple[int, int]:
    """Returns intersection and union of the masks in pixels, summed over tracks."""
    masks = [
        dict(zip(frame.ids.tolist(), frame.masks, strict=True))
        for frame in (one, other)
    ]
    both = either = 0
    for i in masks[0].keys() | masks[1].keys():
        a, b = masks[0].get(i), masks[1].get(i)
        if a is not None and b is not None:
            both += int(np.count_nonzero(a & b))
            either += int(np.count_nonzero(a | b))
        else:
            either += sum(int(np.count_nonzero(x)) for x in (a, b) if x is not None)
    return both, either
