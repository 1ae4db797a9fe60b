"""Losses of CondInst on images.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020. Letters: B
images, M true objects, P locations.
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
from vis_jax.losses.multibox import Objects
from vis_jax.ops.sampling import sample_positives
from vis_jax.typing import Array, Bool, Float32, PRNGKeyArray


class MaskLoss(NamedTuple):
    """Losses of a batch."""

    loss: Float32[Array, ""]
    left_out: Float32[Array, ""]  # positives beyond the most


class ImageLosses(NamedTuple):
    """Losses of a batch."""

    terms: dict[str, Float32[Array, ""]]  # by the names of their weights; not weighted
    targets: DenseTargets  # of all locations, with leading axis B
    left_out: Float32[Array, ""]  # positives whose masks are not trained


def image_losses(
    rng: PRNGKeyArray,
    settings: LossSettings,
    out: CondInstOutput,
    objects: Objects,
    *,
    places: Places,
    image_valid: Bool[Array, "B"],
) -> ImageLosses:
    """All losses of images.

    Args:
      rng: key of the positives whose masks are trained.
      settings: which locations are trained on.
      out: with leading axis B.
      objects: with leading axis B.
      places: the locations of an image.
      image_valid: False marks images that count for nothing.
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
    settings: LossSettings, out: CondInstOutput, objects: Objects, places: Places
) -> DenseTargets:
    """Targets of the locations of images; arguments as of `image_losses`."""
    rule = TargetRule(settings.radius, settings.ranges)
    classes = out.dense.class_logits.shape[-1]
    one = functools.partial(dense_targets, places=places, rule=rule, classes=classes)
    return jax.vmap(one)(objects)


def mask_loss(
    rng: PRNGKeyArray,
    out: CondInstOutput,
    objects: Objects,
    *,
    targets: DenseTargets,
    places: Places,
    image_valid: Bool[Array, "B"],
    most: int,
) -> MaskLoss:
    """Dice loss of the masks of positives, their mean over the batch.

    True masks are read at every fourth pixel. Of more positives in an image than `most`
    a random subset stands for all.

    Args:
      rng: key of the choice.
      out: with leading axis B.
      objects: with leading axis B.
      targets: of all locations, with leading axis B.
      places: the locations of an image.
      image_valid: False marks images that count for nothing.
      most: positives of an image.
    """

    @jax.checkpoint  # The hidden layers of all positives are larger than all else.
    def one(
        key: PRNGKeyArray, out: CondInstOutput, objects: Objects, targets: DenseTargets
    ) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
        return _image_mask_loss(key, out, objects, targets, places=places, most=most)

    keys = jax.random.split(rng, len(image_valid))
    sums, left_out = jax.vmap(one)(keys, out, objects, targets)
    sums, left_out = (jnp.where(image_valid, x, 0.0).sum() for x in (sums, left_out))
    return MaskLoss(sums / positives_of(targets.positive, image_valid), left_out)


def _image_mask_loss(
    rng: PRNGKeyArray,
    out: CondInstOutput,
    objects: Objects,
    targets: DenseTargets,
    *,
    places: Places,
    most: int,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Sum over the positives of one image, and how many were left out."""
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
