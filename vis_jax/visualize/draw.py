"""Masks, outlines and labels on a frame, and frames side by side on a sheet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vis_jax.visualize.colours import text_colour, track_colour

OPACITY = 128  # of 255
SHEET_COLOUR = 32  # dark grey between the frames of a sheet
LABEL_MARGIN = 2  # pixels around the text


class Caption(NamedTuple):
    """A label and the pixel (x, y) that it stands on."""

    text: str
    anchor: tuple[int, int]
    colour: tuple[int, int, int]


def draw_frame(
    frame: np.ndarray,
    masks: np.ndarray,
    track_ids: Sequence[int] | np.ndarray,
    *,
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Masks in the colour of their track, outlined and named "3 dog 0.92".

    Where masks overlap, the one with the higher score is on top.

    Args:
      frame: uint8 [H, W, 3], RGB.
      masks: bool [N, H, W].
      track_ids: N numbers, 1, 2, ..
      labels: N classes, 0 .. K - 1.
      names: of the K classes.
      scores: N numbers in [0, 1].

    Returns:
      uint8 [H, W, 3], a new array.

    Raises:
      ValueError: shapes or lengths that do not fit.
    """
    _check(frame, masks, track_ids=track_ids, labels=labels, scores=scores)
    order = np.argsort(np.asarray(scores, np.float32), kind="stable")
    boxes = [_bounding_box(mask) for mask in masks]
    image = Image.fromarray(frame)
    for i in order:
        if boxes[i] is not None:
            _paint(image, masks[i], boxes[i], track_colour(int(track_ids[i])))
    captions = [
        Caption(
            f"{track_ids[i]} {names[labels[i]]} {scores[i]:.2f}",
            _anchor(masks[i], boxes[i]),
            track_colour(int(track_ids[i])),
        )
        for i in order[::-1]
        if boxes[i] is not None
    ]
    _write_captions(image, captions)
    return np.array(image)


def contact_sheet(
    frames: Sequence[np.ndarray], columns: int, *, gap: int = 4
) -> np.ndarray:
    """Frames in rows of `columns`, from left to right, as one image.

    Args:
      frames: uint8 [H, W, 3] each, all of one size.
      columns: frames in a row.
      gap: pixels between frames.

    Returns:
      uint8 [rows * (H + gap) - gap, columns * (W + gap) - gap, 3].

    Raises:
      ValueError: no frames, unequal sizes, or fewer than one column.
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


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """x1 y1 x2 y2 of the pixels, the right and lower end excluded; None if empty."""
    rows = np.flatnonzero(mask.any(1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _anchor(mask: np.ndarray, box: tuple[int, int, int, int]) -> tuple[int, int]:
    """The upper edge of the mask in its median column: moves little over time."""
    inside = mask[box[1] : box[3], box[0] : box[2]]
    below = np.cumsum(np.count_nonzero(inside, axis=0))
    column = int(np.searchsorted(below, (below[-1] + 1) // 2))
    return box[0] + column, box[1] + int(inside[:, column].argmax())


def _paint(
    image: Image.Image,
    mask: np.ndarray,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
) -> None:
    """Blends one mask into `image`, in place; works inside its box for speed."""
    inside = mask[box[1] : box[3], box[0] : box[2]]
    thickness = max(1, round(min(image.size) / 240))
    alpha = inside * np.uint8(OPACITY)
    alpha[_outline(inside, thickness)] = 255
    image.paste(colour, box, Image.fromarray(np.ascontiguousarray(alpha)))


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of `mask` less than `thickness` steps from a pixel outside it.

    The border of the array counts as outside.
    """
    core = mask
    for _ in range(thickness):
        padded = np.pad(core, 1)
        core = (
            core
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
    return mask & ~core


def _write_captions(image: Image.Image, captions: list[Caption]) -> None:
    """Writes each text on a patch in its colour; the first ones get the best place."""
    W, H = image.size
    font = ImageFont.load_default(max(10, round(min(H, W) / 30)))
    height = math.ceil(font.getbbox("g")[3]) + 2 * LABEL_MARGIN
    draw = ImageDraw.Draw(image)
    taken: list[tuple[int, int, int, int]] = []
    for text, anchor, colour in captions:
        width = round(draw.textlength(text, font=font)) + 2 * LABEL_MARGIN
        x1, y1, x2, y2 = _place(anchor, (height, width), (H, W), taken)
        taken.append((x1, y1, x2, y2))
        # The far corner of a rectangle is drawn too.
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
        corner = x1 + LABEL_MARGIN, y1 + LABEL_MARGIN
        draw.text(corner, text, fill=text_colour(colour), font=font)


def _place(
    anchor: tuple[int, int],
    size: tuple[int, int],
    frame_size: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Where a label goes: on its anchor, inside the frame, below labels in the way."""
    height, width = size
    left = max(0, min(anchor[0] - width // 2, frame_size[1] - width))
    top = max(0, min(anchor[1] - height, frame_size[0] - height))
    for x1, y1, x2, y2 in sorted(taken, key=lambda patch: patch[1]):
        if left < x2 and x1 < left + width and top < y2 and y1 < top + height:
            top = y2
    top = max(0, min(top, frame_size[0] - height))
    return left, top, left + width, top + height
