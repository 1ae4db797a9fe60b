"""Targets for the locations of FCOS, by the centroids of the masks.

Tian et al., "FCOS", ICCV 2019, with the centres of "Conditional Convolutions for
Instance Segmentation", ECCV 2020, as their code samples them. Letters: M true objects,
P locations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.detectors.fcos import STRIDES, Places
from vis_jax.losses.fcos import DenseTargets
from vis_jax.losses.multibox import Objects
from vis_jax.ops.boxes import box_area
from vis_jax.typing import Array, Bool, Float32

_BEYOND = 1e8  # pixels; no box is as long


class TargetRule(NamedTuple):
    """Rule for locations that stand for an object.

    Attributes:
      radius: from the centroid of its mask, in strides; the region is a square.
      ranges: pixels; where the longest distance to a side of the box is up to the first
        one, the first level stands for it, and so on; beyond the last one, the last.
    """

    radius: float
    ranges: tuple[float, ...]


def dense_targets(
    objects: Objects, places: Places, *, rule: TargetRule, classes: int
) -> DenseTargets:
    """The object of every location of one image.

    Of several, the one with the smallest box is taken, of equal ones the first.

    Args:
      objects: of the image; crowds count for nothing.
      places: the locations.
      rule: see the type.
      classes: K, the label of the background.
    """
    x, y = (places.locations[:, axis, None] for axis in (0, 1))
    x1, y1, x2, y2 = (objects.boxes[None, :, side] for side in range(4))
    distances = jnp.stack([x - x1, y - y1, x2 - x, y2 - y], axis=-1)
    longest = distances.max(axis=-1)
    low, high = _range_of(places, rule)
    fits = (longest >= low[:, None]) & (longest <= high[:, None])
    fits &= _central(objects, places, rule.radius)
    fits &= (objects.valid & ~objects.crowd)[None]
    areas = jnp.where(fits, box_area(objects.boxes)[None], jnp.inf)
    truth = areas.argmin(axis=1).astype(jnp.int32)
    positive = fits.any(axis=1)
    chosen = jnp.take_along_axis(distances, truth[:, None, None], axis=1)[:, 0]
    return DenseTargets(
        truth,
        jnp.where(positive, objects.labels[truth], classes),
        jnp.where(positive[:, None], chosen, 1.0),
        positive,
    )


def _range_of(
    places: Places, rule: TargetRule
) -> tuple[Float32[Array, "P"], Float32[Array, "P"]]:
    """The shortest and the longest distance that each location stands for."""
    level = jnp.searchsorted(jnp.array(STRIDES), places.strides)
    low = jnp.array((-1.0, *rule.ranges), jnp.float32)
    high = jnp.array((*rule.ranges, _BEYOND), jnp.float32)
    return low[level], high[level]


def _central(objects: Objects, places: Places, radius: float) -> Bool[Array, "P M"]:
    """Whether a location is within the region of an object, cut by its box."""
    reach = radius * places.strides.astype(jnp.float32)[:, None, None]
    middle = mask_centroids(objects.masks)[None]
    low = jnp.maximum(middle - reach, objects.boxes[None, :, :2])
    high = jnp.minimum(middle + reach, objects.boxes[None, :, 2:])
    at = places.locations[:, None]
    return ((at > low) & (at < high)).all(axis=-1)


def mask_centroids(masks: Bool[Array, "M H W"]) -> Float32[Array, "M 2"]:
    """Mean x and y of the indices of pixels; 0 without any."""
    rows, columns = (masks.sum(axis=axis, dtype=jnp.float32) for axis in (2, 1))

    def mean(counts: Float32[Array, "M L"]) -> Float32[Array, "M"]:
        index = jnp.arange(counts.shape[1], dtype=jnp.float32)
        total = jnp.maximum(counts.sum(axis=1), 1e-6)
        product = jnp.matmul(counts, index, precision=jax.lax.Precision.HIGHEST)
        return product / total

    return jnp.stack([mean(columns), mean(rows)], axis=1)
