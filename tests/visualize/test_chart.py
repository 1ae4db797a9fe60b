"""Curves as SVG and as a picture."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import ImageColor

from vis_jax.visualize.chart import (
    COLOURS,
    ChartLine,
    Curve,
    Dot,
    Panel,
    Text,
    draw_panels,
    to_image,
    to_svg,
)

RISING = Curve("up & <on>", (0, 10, 20, 30), (1.0, None, 3.0, 4.0))
FALLING = Curve("down", tuple(range(100)), tuple(100.0 - i for i in range(100)))


def shapes_of(chart, kind):
    return [shape for shape in chart.shapes if isinstance(shape, kind)]


def test_a_gap_breaks_the_line_and_few_points_have_dots():
    chart = draw_panels([Panel("loss", [RISING])])
    lines = [one for one in shapes_of(chart, ChartLine) if one.colour == COLOURS[0]]
    assert [len(one.points) for one in lines] == [2, 1, 2]  # legend and two parts
    dots = [(one.x, one.y) for one in shapes_of(chart, Dot)]
    assert dots == [*lines[1].points, *lines[2].points]
    xs, ys = zip(*dots, strict=True)
    assert xs[1] - xs[0] == pytest.approx(2 * (xs[2] - xs[1]))  # steps 0, 20, 30
    assert ys[0] - ys[1] == pytest.approx(2 * (ys[1] - ys[2]))  # values 1, 3, 4; up


def test_axes_have_round_numbers_around_the_values():
    chart = draw_panels([Panel("loss", [FALLING])])
    texts = [one.text for one in shapes_of(chart, Text)]
    assert texts[:2] == ["down", "loss"]
    assert texts[2:] == ["0", "20", "40", "60", "80", "100"] + [
        "0", "20", "40", "60", "80", "100"
    ]  # fmt: skip
    assert not shapes_of(chart, Dot)


def test_steps_are_whole_and_values_need_not_be():
    chart = draw_panels([Panel("loss", [Curve("a", (1, 2), (0.5, 1.0))])])
    texts = [one.text for one in shapes_of(chart, Text)]
    assert texts[2:] == ["1", "2", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]


@pytest.mark.parametrize("values", [(5.0,), (0.0,), (1e-9, 1e-9), (-3e8, 3e8)])
def test_any_values_have_an_axis(values):
    chart = draw_panels([Panel("x", [Curve("a", tuple(range(len(values))), values)])])
    panel_ticks = [one for one in shapes_of(chart, Text) if one.anchor == "end"]
    assert 2 <= len(panel_ticks) <= 10
    for shape in shapes_of(chart, Dot):
        assert 0 < shape.x < chart.width and 0 < shape.y < chart.height


def test_both_forms_show_every_curve_and_words_are_escaped():
    panels = [Panel("loss", [RISING, FALLING]), Panel("AP", [FALLING]), Panel("no", [])]
    chart = draw_panels(panels, columns=2)
    root = ET.fromstring(to_svg(chart))
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[:2] == ["up & <on>", "down"]
    assert {"loss", "AP", "no", "no numbers"} <= set(words)
    pixels = np.asarray(to_image(chart)).astype(int)
    assert pixels.shape == (chart.height, chart.width, 3)
    for colour in COLOURS[:2]:
        far = np.abs(pixels - ImageColor.getrgb(colour)).max(-1)
        assert (far < 8).sum() > 60  # the legend alone has 30 x 3
    assert (pixels == 255).all(-1).mean() > 0.8
