"""Silhouettes of the moving shapes: signed distance to an outline in its own frame.

Every function maps float32 coordinates u (right), v (down) to a distance in units of
the shape's radius: negative inside, and close to the true distance near the outline,
which is what anti-aliasing needs. All shapes lie within radius 1 of the origin. `p` in
[0, 1] varies the proportions within a category.
"""

from collections.abc import Callable

import numpy as np


def disc(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Filled circle."""
    del p  # discs vary only by the stretch common to all shapes
    return np.hypot(u, v) - 0.95


def square(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Square, up to 15 % longer than high."""
    return np.maximum(np.abs(u) - 0.7, np.abs(v) - (0.7 - 0.1 * p))


def triangle(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Equilateral triangle; `p` cuts its corners a little."""
    half_height, side = 0.5 * v, np.abs(u) * np.float32(np.sqrt(0.75))
    edges = np.maximum(side - half_height, v) - 0.5
    return np.maximum(edges, np.hypot(u, v) - (1.0 - 0.1 * p))


def star(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Star with five points; `p` sets the depth of its notches."""
    fifth = np.float32(2 * np.pi / 5)
    angle, radius = np.arctan2(u, -v), np.hypot(u, v)
    angle = np.abs(angle - fifth * np.rint(angle / fifth))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    inner = 0.42 + 0.1 * p
    # The edge runs from the point (1, 0) to a notch at half the angle between points.
    edge = np.array([inner * np.cos(np.pi / 5) - 1.0, inner * np.sin(np.pi / 5)])
    normal_x, normal_y = (np.array([edge[1], -edge[0]]) / np.hypot(*edge)).tolist()
    return normal_x * (x - 1.0) + normal_y * y


def cross(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Plus sign; `p` sets the width of its arms."""
    width, reach = 0.24 + 0.1 * p, 0.94
    a, b = np.abs(u), np.abs(v)
    across = np.maximum(a - reach, b - width)
    along = np.maximum(a - width, b - reach)
    return np.minimum(across, along)


def ring(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Circle with a hole; `p` sets its thickness."""
    half = 0.16 + 0.06 * p
    return np.abs(np.hypot(u, v) - (0.97 - half)) - half


def crescent(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Disc from which another disc is cut; `p` moves the cut."""
    shift, cut = 0.5 + 0.15 * p, 0.78
    return np.maximum(np.hypot(u, v) - 0.97, cut - np.hypot(u - shift, v))


def heart(u: np.ndarray, v: np.ndarray, p: float) -> np.ndarray:
    """Heart, after I. Quilez, "2D distance functions"; `p` flattens it a little."""
    scale = 0.69
    x = np.abs(u) * scale
    y = 0.57 - v * (scale * (1.0 + 0.15 * p))
    lobe = np.hypot(x - 0.25, y - 0.75) - np.float32(np.sqrt(2.0) / 4.0)
    slope = 0.5 * np.maximum(x + y, 0.0)
    tip = np.minimum(np.hypot(x, y - 1.0), np.hypot(x - slope, y - slope))
    return np.where(x + y > 1.0, lobe, tip * np.sign(x - y)) / scale


# The order gives the labels.
SILHOUETTES: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "ring": ring,
    "crescent": crescent,
    "heart": heart,
}
