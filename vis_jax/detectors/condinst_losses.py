"""Losses of CondInst on images.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020. Letters: B
images, M ground-truth objects, P locations.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.detectors.condinst import MASK_STRIDE, CondInstOutput, mask_logits
from vis_jax.detectors.condinst_settings import LossSettings
from vis_jax.detectors.fcos import Places
from vis_jax.detectors.fcos_targets import TargetRule, dense_targets
from vis_jax.losses.fcos import DenseTargets, fcos_losses, positives_of
from vis_jax.losses.mask import squared_dice
from vis_jax.losses.multibox import ImageObjects
from vis_jax.ops.sampling import sample_positives
from vis_jax.typing import Array, Bool, Float32, PRNGKeyArray


class DiceLoss(NamedTuple):
    """Mask loss of a batch."""

    loss: Float32[Array, ""]
    left_out: Float32[Array, ""]  # positives not sampled


class ImageLosses(NamedTuple):
    """All losses of a batch."""

    terms: dict[str, Float32[Array, ""]]  # by the names of their weights; unweighted
    targets: DenseTargets  # targets of all locations, with leading axis B
    left_out: Float32[Array, ""]  # positives whose masks are not trained


def image_losses(
    rng: PRNGKeyArray,
    settings: LossSettings,
    out: CondInstOutput,
    objects: ImageObjects,
    *,
    places: Places,
    image_valid: Bool[Array, "B"],
) -> ImageLosses:
    """Returns all losses of images.

    Args:
      rng: key for sampling the positives whose masks are trained.
      settings: training targets.
      out: with leading axis B.
      objects: with leading axis B.
      places: locations of an image.
      image_valid: False marks images to ignore.
    """
    targets = targets_of(settings, out, objects, places)
    found = fcos_losses(out.dense, targets, image_valid=image_valid)
    masks = mask_loss(
        rng,
        out,
        objects,
        targets=targets,
        places=places,
        image_valid=image_valid,
        most=settings.positives,
    )
    terms = {
        "box_class": found.classes,
        "box": found.boxes,
        "centre": found.centres,
        "mask": masks.loss,
    }
    return ImageLosses(terms, targets, masks.left_out)


def targets_of(
    settings: LossSettings, out: CondInstOutput, objects: ImageObjects, places: Places
) -> DenseTargets:
    """Returns the targets of all locations; arguments as in `image_losses`."""
    rule = TargetRule(settings.radius, settings.ranges)
    classes = out.dense.class_logits.shape[-1]
    one = functools.partial(dense_targets, places=places, rule=rule, classes=classes)
    return jax.vmap(one)(objects)


def mask_loss(
    rng: PRNGKeyArray,
    out: CondInstOutput,
    objects: ImageObjects,
    *,
    targets: DenseTargets,
    places: Places,
    image_valid: Bool[Array, "B"],
    most: int,
) -> DiceLoss:
    """Returns the dice loss of positives' masks, averaged over the batch.

    Ground-truth masks are sampled at every fourth pixel. If an image has more than
    `most` positives, a random subset represents them.

    Args:
      rng: random key.
      out: with leading axis B.
      objects: with leading axis B.
      targets: targets of all locations, with leading axis B.
      places: locations of an image.
      image_valid: False marks images to ignore.
      most: most positives per image.
    """

    @jax.checkpoint  # The hidden layers of all positives dominate memory.
    def one(
        key: PRNGKeyArray,
        out: CondInstOutput,
        objects: ImageObjects,
        targets: DenseTargets,
    ) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
        return _image_mask_loss(key, out, objects, targets, places=places, most=most)

    keys = jax.random.split(rng, len(image_valid))
    sums, left_out = jax.vmap(one)(keys, out, objects, targets)
    sums, left_out = (jnp.where(image_valid, x, 0.0).sum() for x in (sums, left_out))
    return DiceLoss(sums / positives_of(targets.positive, image_valid), left_out)


def _image_mask_loss(
    rng: PRNGKeyArray,
    out: CondInstOutput,
    objects: ImageObjects,
    targets: DenseTargets,
    *,
    places: Places,
    most: int,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Returns the sum over one image's positives, and the number left out."""
    subset = sample_positives(rng, targets.positive, most=most)
    at = Places(*(x[subset.chosen] for x in places))
    logits = mask_logits(out.dense.filters[subset.chosen], out.features, at)
    first = MASK_STRIDE // 2
    wanted = objects.masks[:, first::MASK_STRIDE, first::MASK_STRIDE]
    wanted = wanted[targets.truth[subset.chosen]].astype(jnp.float32)
    flat = (len(subset.chosen), -1)
    losses = squared_dice(logits.reshape(flat), wanted.reshape(flat))
    total = jnp.where(subset.counted, losses, 0.0).sum() * subset.share
    return total, subset.left_out
