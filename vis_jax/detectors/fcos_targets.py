"""FCOS targets with center sampling around mask centroids.

Tian et al., "FCOS", ICCV 2019, with the centres of "Conditional Convolutions for
Instance Segmentation", ECCV 2020, sampled as in their code. Letters: M ground-truth
objects, P locations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.detectors.fcos import STRIDES, Places
from vis_jax.losses.fcos import DenseTargets
from vis_jax.losses.multibox import ImageObjects
from vis_jax.ops.boxes import box_area
from vis_jax.typing import Array, Bool, Float32

_BEYOND = 1e8  # pixels; larger than any box


class TargetRule(NamedTuple):
    """Rule that assigns locations to objects.

    Attributes:
      radius: half side of the square around the mask centroid, in strides.
      ranges: pixels; the first level takes locations whose longest side distance is up
        to the first value, and so on; the last level takes the rest.
    """

    radius: float
    ranges: tuple[float, ...]


def dense_targets(
    objects: ImageObjects, places: Places, *, rule: TargetRule, classes: int
) -> DenseTargets:
    """Returns the object assigned to every location of one image.

    If several qualify, the one with the smallest box wins, the first on ties.

    Args:
      objects: objects of the image; crowds are ignored.
      places: locations of the image.
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
    """Returns each location's least and greatest distance."""
    level = jnp.searchsorted(jnp.array(STRIDES), places.strides)
    low = jnp.array((-1.0, *rule.ranges), jnp.float32)
    high = jnp.array((*rule.ranges, _BEYOND), jnp.float32)
    return low[level], high[level]


def _central(
    objects: ImageObjects, places: Places, radius: float
) -> Bool[Array, "P M"]:
    """Returns which locations are in an object's central region, cut by its box."""
    reach = radius * places.strides.astype(jnp.float32)[:, None, None]
    middle = mask_centroids(objects.masks)[None]
    low = jnp.maximum(middle - reach, objects.boxes[None, :, :2])
    high = jnp.minimum(middle + reach, objects.boxes[None, :, 2:])
    at = places.locations[:, None]
    return ((at > low) & (at < high)).all(axis=-1)


def mask_centroids(masks: Bool[Array, "M H W"]) -> Float32[Array, "M 2"]:
    """Returns the mean x and y pixel indices of each mask; 0 if empty."""
    rows, columns = (masks.sum(axis=axis, dtype=jnp.float32) for axis in (2, 1))

    def mean(counts: Float32[Array, "M L"]) -> Float32[Array, "M"]:
        index = jnp.arange(counts.shape[1], dtype=jnp.float32)
        total = jnp.maximum(counts.sum(axis=1), 1e-6)
        product = jnp.matmul(counts, index, precision=jax.lax.Precision.HIGHEST)
        return product / total

    return jnp.stack([mean(columns), mean(rows)], axis=1)
