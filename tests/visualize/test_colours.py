import itertools

import numpy as np
import pytest

from vis_jax.visualize.colours import line_colour, palette, text_colour, track_colour


def test_background_is_black_and_ids_are_not():
    assert track_colour(0) == (0, 0, 0)
    assert all(max(track_colour(i)) > 100 for i in range(1, 200))


def test_palette_holds_the_colours_of_the_tracks():
    colours = palette(256)
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert tuple(colours[37]) == track_colour(37)
    assert palette(0).shape == (0, 3)


def _oklab(rgb):
    """Ottosson, "A perceptual color space for image processing", 2020."""
    x = np.asarray(rgb) / 255
    x = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    lms = np.cbrt(
        [
            [0.4122214708, 0.5363325363, 0.0514459929] @ x,
            [0.2119034982, 0.6806995451, 0.1073969566] @ x,
            [0.0883024619, 0.2817188376, 0.6299787005] @ x,
        ]
    )
    rows = (
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    )
    return np.array([row @ lms for row in rows])


@pytest.mark.parametrize(("tracks", "least"), [(6, 0.16), (12, 0.12), (20, 0.07)])
def test_colours_are_far_apart(tracks, least):
    lab = [_oklab(track_colour(i)) for i in range(1, tracks + 1)]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > least


def test_text_has_contrast_on_every_colour():
    def luminance(rgb):
        return (np.asarray(rgb) / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722)

    for i in range(100):
        background = track_colour(i)
        pair = sorted([luminance(background), luminance(text_colour(background))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5  # WCAG AA


def test_negative_ids_are_an_error():
    with pytest.raises(ValueError, match="track_id: expected 0 or more, got -1"):
        track_colour(-1)


def test_an_outline_is_told_from_its_fill_and_is_bright():
    for track in range(1, 31):
        fill, line = _oklab(track_colour(track)), _oklab(line_colour(track))
        assert np.linalg.norm(fill - line) > 0.17
        assert line[0] > 0.6
