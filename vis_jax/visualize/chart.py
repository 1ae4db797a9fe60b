"""Line charts over training steps, drawn identically as SVG and as an image.

Coordinates are in pixels from the top left corner.
"""

import html
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito, "Color Universal Design", 2008: a palette safe for the colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
WIDTH, HEIGHT = 460, 280  # pixels of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 34, 34  # margins around the axes
_GREY, _INK = "#d9d9d9", "#333333"
_FONT = 12  # pixels
_MARKED = 30  # maximum number of points drawn with dots
_FINER = 3  # supersampling factor of images, for smooth lines


class Curve(NamedTuple):
    """Values of one run; None breaks the line."""

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]


class Panel(NamedTuple):
    """Axes with the curves of one metric."""

    title: str
    curves: Sequence[Curve]


class ChartLine(NamedTuple):
    """Polyline."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float


class Dot(NamedTuple):
    """Filled circle."""

    x: float
    y: float
    colour: str
    radius: float


class Text(NamedTuple):
    """Text, vertically centred at y."""

    x: float
    y: float
    text: str
    anchor: str  # point of the text at x: start, middle or end


Shape = ChartLine | Dot | Text


class Chart(NamedTuple):
    """Chart on a white background."""

    width: int
    height: int
    shapes: tuple[Shape, ...]


def draw_panels(panels: Sequence[Panel], *, columns: int = 2) -> Chart:
    """Arranges panels in rows, below a legend of all curves.

    Args:
      panels: one for each metric.
      columns: panels per row.
    """
    labels = list(dict.fromkeys(one.label for panel in panels for one in panel.curves))
    colours = {
        label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)
    }
    shapes: list[Shape] = []
    for number, label in enumerate(labels):
        y = 18.0 + 20 * number
        shapes.append(ChartLine(((14.0, y), (44.0, y)), colours[label], 3))
        shapes.append(Text(52, y, label, "start"))
    top = 20 * len(labels) + 12
    for number, panel in enumerate(panels):
        x, y = number % columns * WIDTH, top + number // columns * HEIGHT
        shapes += _panel(panel, x, y, colours)
    rows = -(-len(panels) // columns)
    return Chart(
        min(columns, max(len(panels), 1)) * WIDTH, top + rows * HEIGHT, tuple(shapes)
    )


def _panel(panel: Panel, x: int, y: int, colours: dict[str, str]) -> Iterator[Shape]:
    """Draws title, grid, tick labels and curves of a panel with its corner at x, y."""
    points = [
        (step, value)
        for curve in panel.curves
        for step, value in zip(curve.steps, curve.values, strict=True)
        if value is not None
    ]
    yield Text(x + WIDTH / 2, y + 16, panel.title, "middle")
    if not points:
        yield Text(x + WIDTH / 2, y + HEIGHT / 2, "no numbers", "middle")
        return
    across = _Axis(*_ends([step for step, _ in points]), x + _LEFT, x + WIDTH - _RIGHT)
    up = _Axis(*_ends([value for _, value in points]), y + HEIGHT - _BOTTOM, y + _TOP)
    for tick in across.ticks(least=1.0):  # steps are integers
        place = across.place(tick)
        yield ChartLine(((place, up.start), (place, up.end)), _GREY, 1)
        yield Text(place, up.start + 14, f"{tick:g}", "middle")
    for tick in up.ticks():
        place = up.place(tick)
        yield ChartLine(((across.start, place), (across.end, place)), _GREY, 1)
        yield Text(across.start - 8, place, f"{tick:g}", "end")
    for curve in panel.curves:
        for part in _parts(curve):
            places = tuple((across.place(s), up.place(v)) for s, v in part)
            yield ChartLine(places, colours[curve.label], 2)
            if len(curve.steps) <= _MARKED:
                yield from (Dot(*place, colours[curve.label], 3) for place in places)


class _Axis(NamedTuple):
    """Axis from `low` to `high`, drawn from pixel `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, number: float) -> float:
        share = (number - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, *, least: float = 0.0) -> list[float]:
        """Returns about five round numbers on the axis, at least `least` apart."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(one for one in (5, 2, 1) if 4 * one * step <= self.high - self.low)
        step = max(step, least)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def _ends(numbers: Sequence[float]) -> tuple[float, float]:
    """Returns minimum and maximum with some margin."""
    low, high = min(numbers), max(numbers)
    room = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _parts(curve: Curve) -> Iterator[list[tuple[float, float]]]:
    """Splits the points of a curve at its gaps."""
    part: list[tuple[float, float]] = []
    for step, value in zip(curve.steps, curve.values, strict=True):
        if value is not None:
            part.append((step, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def to_svg(chart: Chart) -> str:
    """Renders the chart as an SVG element, for a page or its own file."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {chart.width}'
        f' {chart.height}" width="{chart.width}" height="{chart.height}"'
        f' font-family="sans-serif" font-size="{_FONT}" fill="{_INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for shape in chart.shapes:
        if isinstance(shape, ChartLine):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{shape.colour}"'
                f' stroke-width="{shape.width}" stroke-linejoin="round"/>'
            )
        elif isinstance(shape, Dot):
            parts.append(
                f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius}"'
                f' fill="{shape.colour}"/>'
            )
        else:
            parts.append(
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" dominant-baseline="central"'
                f' text-anchor="{shape.anchor}">{html.escape(shape.text)}</text>'
            )
    return "\n".join([*parts, "</svg>"])


def to_image(chart: Chart) -> Image.Image:
    """Renders the chart as an RGB image."""
    size = chart.width * _FINER, chart.height * _FINER
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT * _FINER)
    anchors = {"start": "lm", "middle": "mm", "end": "rm"}
    for shape in chart.shapes:
        if isinstance(shape, ChartLine):
            points = [(x * _FINER, y * _FINER) for x, y in shape.points]
            width = round(shape.width * _FINER)
            draw.line(points, shape.colour, width, joint="curve")
        elif isinstance(shape, Dot):
            centre = shape.x * _FINER, shape.y * _FINER
            draw.circle(centre, shape.radius * _FINER, shape.colour)
        else:
            place = shape.x * _FINER, shape.y * _FINER
            anchor = anchors[shape.anchor]
            draw.text(place, shape.text, _INK, font, anchor=anchor)
    return image.resize((chart.width, chart.height), Image.Resampling.LANCZOS)
