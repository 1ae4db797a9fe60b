"""Draws masks, outlines, trails and labels on frames, and contact sheets."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vis_jax.visualize.colours import (
    STYLE,
    DrawStyle,
    line_colour,
    text_colour,
    track_colour,
)
from vis_jax.visualize.labels import Labelled, Rectangle, place_labels

SHEET_COLOUR = 32  # dark grey between the frames of a sheet
LABEL_MARGIN = 2  # pixels around the text
SMALL = 25  # masks of at most so many pixels are filled opaquely
FINE = 3  # supersampling factor of trails, as lines are not antialiased

Colour = tuple[int, int, int]
Path = Sequence[tuple[float, float]]


def draw_frame(
    frame: np.ndarray,
    masks: np.ndarray,
    track_ids: Sequence[int] | np.ndarray,
    *,
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None,
    style: DrawStyle = STYLE,
    trails: Mapping[int, Path] = {},  # noqa: B006 - never changed
) -> np.ndarray:
    """Draws masks in their track's colour, with outlines and labels "3 dog 0.92".

    Where masks overlap, the one with the higher score is on top, or the last without
    scores.

    Args:
      frame: uint8 [H, W, 3], RGB.
      masks: bool [N, H, W].
      track_ids: N ids, 1, 2, ..
      labels: N classes, 0 .. K - 1.
      names: names of the K classes.
      scores: N scores in [0, 1]; None: ground truth, with labels "3 dog".
      style: drawing style.
      trails: x and y of an object's past positions, oldest first, by track id.

    Returns:
      uint8 [H, W, 3], a new array.

    Raises:
      ValueError: shapes or lengths do not match.
    """
    ranks = np.arange(len(masks)) if scores is None else scores
    _check(frame, masks, track_ids=track_ids, labels=labels, scores=ranks)
    order = np.argsort(np.asarray(ranks, np.float32), kind="stable").tolist()
    image = Image.fromarray(frame)
    width = style.line_width or max(1.5, min(image.size) / 240)
    objects = []
    for i in order:
        box, number = _bounding_box(masks[i]), int(track_ids[i])
        if box is None:
            continue
        _paint(image, masks[i], box, number, style.opacity, width)
        if style.boxes:
            _draw_box(image, box, line_colour(number), round(width))
        text = f"{number} {names[labels[i]]}"
        if scores is not None:
            text = f"{text} {scores[i]:.2f}"
        objects.append((text, number, box, _anchor(masks[i], box)))
    for number, path in trails.items():
        _draw_path(image, path, line_colour(number), width)
    if style.labels:
        _write_labels(image, objects[::-1])
    return np.array(image)


def contact_sheet(
    frames: Sequence[np.ndarray], columns: int, *, gap: int = 4
) -> np.ndarray:
    """Tiles frames into one image, in rows of `columns` from left to right.

    Args:
      frames: uint8 [H, W, 3] each, all of one size.
      columns: frames per row.
      gap: pixels between frames.

    Returns:
      uint8 [rows * (H + gap) - gap, columns * (W + gap) - gap, 3].

    Raises:
      ValueError: there are no frames, sizes differ, or `columns` is less than 1.
    """
    shapes = sorted({np.shape(frame) for frame in frames})
    if len(shapes) != 1 or columns < 1:
        raise ValueError(
            "contact_sheet: expected frames of one size and columns >= 1,"
            f" got sizes {shapes} and columns {columns}"
        )
    H, W, C = shapes[0]
    rows = -(-len(frames) // columns)
    size = rows * (H + gap) - gap, columns * (W + gap) - gap, C
    sheet = np.full(size, SHEET_COLOUR, np.uint8)
    for i, frame in enumerate(frames):
        top, left = i // columns * (H + gap), i % columns * (W + gap)
        sheet[top : top + H, left : left + W] = frame
    return sheet


def _check(
    frame: np.ndarray, masks: np.ndarray, **per_mask: Sequence | np.ndarray
) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(
            f"frame: expected uint8 [H, W, 3], got {frame.dtype} {frame.shape}"
        )
    if masks.ndim != 3 or masks.shape[1:] != frame.shape[:2] or masks.dtype != bool:
        raise ValueError(
            f"masks: expected bool [N, {frame.shape[0]}, {frame.shape[1]}],"
            f" got {masks.dtype} {masks.shape}"
        )
    for name, values in per_mask.items():
        if len(values) != len(masks):
            raise ValueError(f"{name}: expected {len(masks)}, got {len(values)}")


def _bounding_box(mask: np.ndarray) -> Rectangle | None:
    """Returns x1 y1 x2 y2 of the pixels, x2 and y2 exclusive; None if empty."""
    rows = np.flatnonzero(mask.any(1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Rectangle(left, int(rows[0]), right, int(rows[-1]) + 1)


def _anchor(mask: np.ndarray, box: Rectangle) -> tuple[int, int]:
    """Returns the top pixel of the mask's median column, which is stable over time."""
    inside = mask[box[1] : box[3], box[0] : box[2]]
    below = np.cumsum(np.count_nonzero(inside, axis=0))
    column = int(np.searchsorted(below, (below[-1] + 1) // 2))
    return box[0] + column, box[1] + int(inside[:, column].argmax())


def _paint(
    image: Image.Image,
    mask: np.ndarray,
    box: Rectangle,
    number: int,
    opacity: float,
    width: float,
) -> None:
    """Blends one mask into `image`, in place; works around its box for speed."""
    margin = math.ceil(width) + 2
    W, H = image.size
    x1, y1 = max(0, box.x1 - margin), max(0, box.y1 - margin)
    x2, y2 = min(W, box.x2 + margin), min(H, box.y2 + margin)
    inside = mask[y1:y2, x1:x2]
    if np.count_nonzero(inside) <= SMALL:
        opacity = 1.0
    place, whole = (x1, y1, x2, y2), Image.fromarray(inside * np.uint8(255))
    fill = whole.point([0] * 255 + [round(255 * opacity)])
    image.paste(track_colour(number), place, fill)
    # Across a straight edge the mean over a square is linear: it encodes the distance.
    radius = math.ceil(width / 2 + 0.5)
    soft = whole.filter(ImageFilter.BoxBlur(radius))
    image.paste(line_colour(number), place, soft.point(_outline(width, radius)))


@functools.lru_cache(16)
def _outline(width: float, radius: int) -> list[int]:
    """Returns the outline's opacity for each mean 0 .. 255 over a square window."""
    steps = np.arange(256) / 255
    distance = np.abs(steps - 0.5) * (2 * radius + 1)
    return (
        np.round(255 * np.clip(width / 2 + 0.5 - distance, 0, 1)).astype(int).tolist()
    )


def _draw_box(image: Image.Image, box: Rectangle, colour: Colour, width: int) -> None:
    corners = (box.x1, box.y1, box.x2 - 1, box.y2 - 1)
    ImageDraw.Draw(image).rectangle(corners, outline=colour, width=max(1, width))


def _draw_path(image: Image.Image, path: Path, colour: Colour, width: float) -> None:
    """Draws a line along the points that fades with age."""
    if len(path) < 2:
        return
    points = np.array(path)
    margin = math.ceil(width) + 2
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + margin, image.size)
    width_, height_ = (high - low).tolist()
    if width_ < 1 or height_ < 1:
        return
    mask = Image.new("L", (width_ * FINE, height_ * FINE))
    draw = ImageDraw.Draw(mask)
    fine = ((points - low) * FINE).tolist()
    for k in range(1, len(fine)):
        strength = round(255 * k / (len(fine) - 1))
        ends = [tuple(fine[k - 1]), tuple(fine[k])]
        draw.line(ends, fill=strength, width=round(width * FINE))
    image.paste(colour, (int(low[0]), int(low[1])), mask.reduce(FINE))


def _write_labels(
    image: Image.Image,
    objects: Sequence[tuple[str, int, Rectangle, tuple[int, int]]],
) -> None:
    """Draws each label on a patch in its colour; earlier ones get better positions.

    Args:
      image: to draw on.
      objects: text, track id, box and anchor of each object.
    """
    W, H = image.size
    size = max(10, round(min(H, W) / 36))
    patches = [_patch(text, track_colour(number), size) for text, number, *_ in objects]
    places = place_labels(
        [
            Labelled(box, anchor, (patch.height, patch.width))
            for (_, _, box, anchor), patch in zip(objects, patches, strict=True)
        ],
        (H, W),
    )
    draw = ImageDraw.Draw(image)
    for one, patch, place in zip(objects, patches, places, strict=True):
        _lead(draw, place, one[2], track_colour(one[1]))
        image.paste(patch, (place.x1, place.y1))


@functools.lru_cache(512)  # most labels repeat those of the previous frame
def _patch(text: str, colour: Colour, size: int) -> Image.Image:
    """Renders a label: text on a coloured patch."""
    font = ImageFont.load_default(size)
    width = round(font.getlength(text)) + 2 * LABEL_MARGIN
    height = math.ceil(font.getbbox("g")[3]) + 2 * LABEL_MARGIN
    patch = Image.new("RGB", (width, height), colour)
    corner = (LABEL_MARGIN, LABEL_MARGIN)
    ImageDraw.Draw(patch).text(corner, text, fill=text_colour(colour), font=font)
    return patch


def _lead(
    draw: ImageDraw.ImageDraw, place: Rectangle, box: Rectangle, colour: Colour
) -> None:
    """Draws a line between a label and its object if they do not touch."""
    ends = []
    for one, other in ((place, box), (box, place)):
        x = min(max((other.x1 + other.x2) // 2, one.x1), one.x2 - 1)
        y = min(max((other.y1 + other.y2) // 2, one.y1), one.y2 - 1)
        ends.append((x, y))
    (x1, y1), (x2, y2) = ends
    if abs(x1 - x2) + abs(y1 - y2) > place.y2 - place.y1:
        draw.line(ends, fill=colour, width=1)
