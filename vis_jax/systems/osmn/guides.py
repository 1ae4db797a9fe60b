"""Guides that show a one-shot segmentation network the object to segment.

Yang et al., "Efficient Video Object Segmentation via Network Modulation" (OSMN), CVPR
2018: a crop of the object (visual guide), and its rough position (spatial guide).
"""

from typing import NamedTuple

import jax.numpy as jnp

from vis_jax.ops.bilinear import sample_channels
from vis_jax.typing import Array, Bool, Float32, Int32

_NORMAL = 1.4826  # standard deviation of a normal / its median absolute deviation
_LEAST_SIGMA = 5.0  # pixels


class ObjectExtent(NamedTuple):
    """Robust position and extent of an object, in pixel indices."""

    centre: Float32[Array, "*lead 2"]  # x, y
    sigma: Float32[Array, "*lead 2"]  # 0 if the mask was empty


class CropView(NamedTuple):
    """Box, rotation and flip for the crop of an object."""

    box: Float32[Array, "4"]  # in pixels; its content fills the crop
    angle: Float32[Array, ""]  # rotation of the crop about its centre, radians
    flip: Bool[Array, ""]


def mask_box(mask: Bool[Array, "H W"]) -> Float32[Array, "4"]:
    """Returns the smallest box around a mask, zeros if it is empty."""
    sides = []
    for axis in (0, 1):
        line = mask.any(axis=axis)
        first = jnp.argmax(line)
        behind = line.shape[0] - jnp.argmax(line[::-1])
        sides.append((first, jnp.where(line.any(), behind, 0)))
    (x1, x2), (y1, y2) = sides
    return jnp.stack([x1, y1, x2, y2]).astype(jnp.float32)


def place_of(mask: Bool[Array, "H W"]) -> ObjectExtent:
    """Returns medians of the pixels' x and y, and deviations from median distances.

    The median of an even number is the mean of the middle two, as in NumPy. Medians are
    read off column and row histograms, so nothing is sorted.
    """
    axes = [_centre_and_deviation(mask.sum(axis=axis)) for axis in (0, 1)]
    centre = jnp.stack([axis[0] for axis in axes])
    sigma = jnp.maximum(_NORMAL * jnp.stack([axis[1] for axis in axes]), _LEAST_SIGMA)
    return ObjectExtent(centre, jnp.where(mask.any(), sigma, 0.0))


def spatial_guide(
    place: ObjectExtent, *, size: tuple[int, int]
) -> Float32[Array, "_ _"]:
    """exp(-((x - cx)^2 / sx^2 + (y - cy)^2 / sy^2) / 2); 0 if the mask was empty.

    Args:
      size: height and width in pixels.
    """
    rows = _bell(size[0], place.centre[1], place.sigma[1])
    columns = _bell(size[1], place.centre[0], place.sigma[0])
    return rows[:, None] * columns[None]


def pad_box(box: Float32[Array, "4"], share: float) -> Float32[Array, "4"]:
    """Returns a box with `share` of its width or height added on each side."""
    extent = jnp.tile(box[2:] - box[:2], 2)
    return box + share * extent * jnp.asarray([-1.0, -1.0, 1.0, 1.0])


def visual_guide(
    image: Float32[Array, "H W 3"],
    mask: Bool[Array, "H W"],
    view: CropView,
    *,
    side: int,
) -> Float32[Array, "_ _ 3"]:
    """Crops the object in a box, resized to a square; zero outside the object.

    Deviation: the image is sampled bilinearly at the centre of each pixel of the crop;
    the authors' resize averages over more pixels when shrinking.

    Args:
      image: normalised, so that zero is the mean colour.
      mask: mask of the object; sampled at the nearest pixel.
      view: an empty box gives zeros.
      side: pixels.
    """
    height, width = mask.shape
    points = _view_points(view, side)
    extent = view.box[2:] - view.box[:2]
    at = view.box[None, :2] + points * extent[None]
    x, y = at[:, 0], at[:, 1]
    inside = jnp.all((points >= 0) & (points < 1), axis=1)
    inside &= (x >= 0) & (x < width) & (y >= 0) & (y < height) & jnp.all(extent > 0)
    column, row = (
        jnp.where(inside, jnp.floor(v), 0.0).astype(jnp.int32) for v in (x, y)
    )
    shown = inside & mask[row, column]
    scale = jnp.asarray([[width, height]], jnp.float32)
    values = sample_channels(image, at / scale)
    return jnp.where(shown[:, None], values, 0.0).reshape(side, side, 3)


def _view_points(view: CropView, side: int) -> Float32[Array, "P 2"]:
    """Returns the sampling point of each pixel of the crop, in [0, 1] of the box."""
    line = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side - 0.5
    x, y = (v.ravel() for v in jnp.meshgrid(line, line))
    x = jnp.where(view.flip, -x, x)
    cos, sin = jnp.cos(view.angle), jnp.sin(view.angle)
    return jnp.stack([x * cos - y * sin, x * sin + y * cos], axis=1) + 0.5


def _centre_and_deviation(
    counts: Int32[Array, "L"],
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Returns the median of positions, and the median distance to it.

    Twice the median is an integer, and so is twice each distance.
    """
    positions = jnp.arange(counts.shape[0], dtype=jnp.int32)
    twice_centre = _twice_median(counts)
    twice_distance = jnp.abs(2 * positions - twice_centre)
    distances = jnp.zeros((2 * counts.shape[0],), jnp.int32)
    distances = distances.at[twice_distance].add(counts)
    centre = twice_centre.astype(jnp.float32) / 2
    return centre, _twice_median(distances).astype(jnp.float32) / 4


def _twice_median(counts: Int32[Array, "L"]) -> Int32[Array, ""]:
    """Returns the sum of the middle two positions counted by a histogram."""
    below = jnp.cumsum(counts)
    total = below[-1]
    middle = [jnp.argmax(below > rank) for rank in ((total - 1) // 2, total // 2)]
    return (middle[0] + middle[1]).astype(jnp.int32)


def _bell(
    length: int, centre: Float32[Array, ""], sigma: Float32[Array, ""]
) -> Float32[Array, "L"]:
    distance = jnp.arange(length, dtype=jnp.float32) - centre
    near = jnp.exp(-0.5 * jnp.square(distance / jnp.where(sigma > 0, sigma, 1.0)))
    return jnp.where(sigma > 0, near, 0.0)
