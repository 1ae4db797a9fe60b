"""Drawing style and track colours, the same in every frame and run."""

import colorsys
from typing import NamedTuple

import numpy as np

# Hues a golden section of the circle apart spread evenly for any number of tracks
# (Knuth, The Art of Computer Programming, vol. 3, 6.4). Tracks 5, 8 or 13 apart have
# close hues, but different tones. The first hue and the tones come from a search: the
# minimum distance in OKLab is 0.17, 0.13, 0.08 among 6, 12, 20 tracks.
GOLDEN = 0.6180339887498949
FIRST_HUE = 0.25
TONES = ((0.7, 0.7), (0.9, 0.9), (0.5, 1.0))  # saturation, value

# Outlines: hue distance from the track's colour (fraction of the circle), saturation.
LINE_HUE, LINE_SATURATION = 1 / 3, 0.55


def track_colour(track_id: int) -> tuple[int, int, int]:
    """Returns the colour of a track.

    Args:
      track_id: 1, 2, ..; 0 is the background: black.

    Returns:
      Red, green and blue in 0 .. 255.

    Raises:
      ValueError: the id is negative.
    """
    if track_id < 0:
        raise ValueError(f"track_id: expected 0 or more, got {track_id}")
    if track_id == 0:
        return 0, 0, 0
    saturation, value = TONES[(track_id - 1) % len(TONES)]
    rgb = colorsys.hsv_to_rgb((FIRST_HUE + track_id * GOLDEN) % 1.0, saturation, value)
    red, green, blue = (round(255 * channel) for channel in rgb)
    return red, green, blue


def line_colour(track_id: int) -> tuple[int, int, int]:
    """Returns the outline colour of a track: bright, with a different hue.

    Args, returns, raises: as `track_colour`.
    """
    red, green, blue = (channel / 255 for channel in track_colour(track_id))
    hue, _, _ = colorsys.rgb_to_hsv(red, green, blue)
    rgb = colorsys.hsv_to_rgb((hue + LINE_HUE) % 1.0, LINE_SATURATION, 1.0)
    red, green, blue = (round(255 * channel) for channel in rgb)
    return red, green, blue


def palette(size: int) -> np.ndarray:
    """Returns the colours of tracks 0 .. size - 1: uint8 [size, 3]."""
    return np.array([track_colour(i) for i in range(size)], np.uint8).reshape(-1, 3)


def text_colour(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns black or white, whichever contrasts more with `background`.

    WCAG 2.2, relative luminance: the two contrasts are equal at 0.179.
    """
    linear = (np.asarray(background) / 255) ** 2.2
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


class DrawStyle(NamedTuple):
    """Drawing style of objects."""

    opacity: float = 0.45  # opacity of the fill, 0 .. 1
    line_width: float = 0.0  # pixels, of outlines and boxes; 0 = chosen by frame size
    labels: bool = True
    boxes: bool = False
    trails: int = 0  # length in frames of the path drawn; 0 = none


STYLE = DrawStyle()
