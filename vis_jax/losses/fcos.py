"""Losses of FCOS per location.

Tian et al., "FCOS: Fully convolutional one-stage object detection", ICCV 2019, with the
box loss of its later code, "FCOS: A simple and strong anchor-free object detector",
TPAMI 2021. Letters: B images, P locations of all levels, K classes, Q filter
parameters, N identities.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vis_jax.losses.classification import sigmoid_focal
from vis_jax.ops.boxes import generalized_box_iou
from vis_jax.typing import Array, Bool, Float32, Int32

_LEAST_WEIGHT = 1e-6  # minimum sum over all boxes, as in mmdetection

# Loss of identities: focal, per-identity logistic, or softmax over identities and
# background.
IdLoss = Literal["focal", "bce", "softmax"]


class FcosOutput(NamedTuple):
    """Output of the head at every location."""

    class_logits: Float32[Array, "*lead P K"]
    distances: Float32[Array, "*lead P 4"]  # to left, top, right, bottom; pixels, >= 0
    centre_logits: Float32[Array, "*lead P"]
    filters: Float32[Array, "*lead P Q"]  # mask filters, see `dynamic_masks`
    id_logits: Float32[Array, "*lead P N"]  # N = 0 without identities


class DenseTargets(NamedTuple):
    """Targets of each location; non-positive locations are background."""

    truth: Int32[Array, "*lead P"]  # ground-truth index; used where positive
    labels: Int32[Array, "*lead P"]  # K = background
    distances: Float32[Array, "*lead P 4"]  # pixels; 1 where not positive
    positive: Bool[Array, "*lead P"]


class FcosLosses(NamedTuple):
    """Unweighted losses of a batch."""

    classes: Float32[Array, ""]
    boxes: Float32[Array, ""]
    centres: Float32[Array, ""]


def fcos_losses(
    out: FcosOutput, targets: DenseTargets, *, image_valid: Bool[Array, "B"]
) -> FcosLosses:
    """Returns focal loss, centreness-weighted GIoU loss, logistic centreness loss.

    The first and the last are divided by the number of positives, the second by the sum
    of its weights, both over the whole batch, including when it is sharded over
    devices.

    Args:
      out: with leading axis B.
      targets: with leading axis B.
      image_valid: False marks images to ignore.
    """
    counted = targets.positive & image_valid[:, None]
    wanted = centreness(targets.distances)
    weights = jnp.where(counted, wanted, 0.0)
    errors = 1 - _giou(out.distances, targets.distances)
    centres = optax.losses.sigmoid_binary_cross_entropy(out.centre_logits, wanted)
    return FcosLosses(
        dense_focal(
            out.class_logits, targets.labels,
            image_valid=image_valid, positive=targets.positive,
        ),
        (errors * weights).sum() / jnp.maximum(weights.sum(), _LEAST_WEIGHT),
        jnp.where(counted, centres, 0.0).sum()
        / positives_of(targets.positive, image_valid),
    )  # fmt: skip


def dense_focal(
    logits: Float32[Array, "B P K"],
    labels: Int32[Array, "B P"],
    *,
    image_valid: Bool[Array, "B"],
    positive: Bool[Array, "B P"],
) -> Float32[Array, ""]:
    """Returns the focal loss of all locations, divided by the number of positives.

    Args:
      logits: logits of classes or identities.
      labels: K for background.
      image_valid: False marks images to ignore.
      positive: locations assigned to an object.
    """
    losses = jnp.where(image_valid[:, None], sigmoid_focal(logits, labels), 0.0)
    return losses.sum() / positives_of(positive, image_valid)


def id_loss(
    logits: Float32[Array, "B P N"],
    ids: Int32[Array, "B P"],
    *,
    kind: IdLoss,
    image_valid: Bool[Array, "B"],
    positive: Bool[Array, "B P"],
) -> Float32[Array, ""]:
    """Returns the identity loss of all locations, divided by the number of positives.

    Zhu et al., "Instance as identity", ECCV 2022, Table 7; its "CE" is one of the last
    two kinds.

    Args:
      logits: logits of identities; for softmax the last column is the background.
      ids: identity of each location; one past the last for none.
      kind: see the type.
      image_valid: False marks images to ignore.
      positive: locations assigned to an object.
    """
    if kind == "focal":
        return dense_focal(logits, ids, image_valid=image_valid, positive=positive)
    if kind == "softmax":
        of_label = optax.losses.softmax_cross_entropy_with_integer_labels
        losses = of_label(logits, ids)
    else:
        wanted = jax.nn.one_hot(ids, logits.shape[-1])
        losses = optax.losses.sigmoid_binary_cross_entropy(logits, wanted).sum(axis=-1)
    losses = jnp.where(image_valid[:, None], losses, 0.0)
    return losses.sum() / positives_of(positive, image_valid)


def positives_of(
    positive: Bool[Array, "B P"], image_valid: Bool[Array, "B"]
) -> Float32[Array, ""]:
    """Counts the positive locations of valid images, at least 1."""
    count = (positive & image_valid[:, None]).sum()
    return jnp.maximum(count, 1).astype(jnp.float32)


def centreness(distances: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead"]:
    """Returns 1 at the centre of a box, 0 at its border; Eq. 3 of the paper.

    Args:
      distances: to left, top, right, bottom; positive.
    """
    near = jnp.minimum(distances[..., :2], distances[..., 2:])
    far = jnp.maximum(distances[..., :2], distances[..., 2:])
    ratios = near / far
    return jnp.sqrt(ratios[..., 0] * ratios[..., 1])


def _giou(
    a: Float32[Array, "*lead 4"], b: Float32[Array, "*lead 4"]
) -> Float32[Array, "*lead"]:
    """Returns the GIoU of box pairs around a shared location."""

    def one(a: Float32[Array, "4"], b: Float32[Array, "4"]) -> Float32[Array, ""]:
        return generalized_box_iou(a[None], b[None])[0, 0]

    lead, sign = a.shape[:-1], jnp.array([[-1.0, -1.0, 1.0, 1.0]])
    a, b = (x.reshape(-1, 4) * sign for x in (a, b))
    return jax.vmap(one)(a, b).reshape(lead)
