"""Set prediction: matches each prediction set to the ground truth for its losses.

Cheng et al., "Mask2Former for Video Instance Segmentation", 2021; the cross-frame terms
are Eq. 6 and 7 of You et al., "Consistent Video Instance Segmentation with Inter-Frame
Recurrent Attention", 2022. Letters: L prediction sets, P points.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.losses.classification import sigmoid_focal, weighted_cross_entropy
from vis_jax.losses.mask import pairwise_bce, pairwise_dice, point_bce, point_dice
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.bilinear import sample, sample_channels
from vis_jax.ops.sampling import draw_sizes, uncertain_points
from vis_jax.settings import Count, Weight, section
from vis_jax.structures import Batch
from vis_jax.typing import Array, Bool, Float, Float32, Int32, Key, PRNGKeyArray, UInt32


@section
class Terms:
    """`loss` of mask queries: terms shared by all kinds."""

    label: Weight = 2.0  # class weight, in matching and in the loss
    mask: Weight = 5.0  # weight of the logistic mask loss, in both
    dice: Weight = 5.0  # weight of the mask dice loss, in both
    points: Count = 12_544  # points per mask, in matching and in the losses


@section
class Focal(Terms):
    """`loss` with K sigmoid outputs, as in IFR."""

    kind: Literal["focal"] = "focal"  # or ce, with fields of its own
    # lambda_e, Eq. 6-7: weight of a frame's queries predicting masks of other frames.
    cross_frame: Weight = 0.3


@section
class CrossEntropy(Terms):
    """`loss` with K + 1 softmax outputs, as in Mask2Former-VIS."""

    kind: Literal["ce"] = "ce"  # or focal, with fields of its own
    cross_frame: Weight = 0.0  # lambda_e, Eq. 6-7 of IFR
    no_object: Weight = 0.1  # weight of the no-object class


Weights = Focal | CrossEntropy


class SetTruth(NamedTuple):
    """Ground truth of one clip."""

    labels: Int32[Array, "M"]
    masks: Bool[Array, "M T H W"]
    valid: Bool[Array, "M"]  # instances with a pixel in at least one frame
    frame_valid: Bool[Array, "T"]


def truth_of(batch: Batch) -> SetTruth:
    """Returns the targets of every clip, with a leading batch axis."""
    real = batch.instance_valid & batch.present.any(axis=-1)
    return SetTruth(batch.labels, batch.masks, real, batch.frame_valid)


def set_loss(
    class_logits: Float32[Array, "L B Q K"],
    mask_embeds: Float32[Array, "L B T Q C"],
    features: Float[Array, "B T h w C"],
    truth: SetTruth,
    key: PRNGKeyArray,
    weights: Weights,
) -> dict[str, Float32[Array, ""]]:
    """Returns the weighted loss terms, each summed over all prediction sets.

    Every set is matched separately. The cross-frame terms skip set 0, whose queries do
    not belong to a frame.

    Args:
      class_logits: K outputs, or K + 1 with no object last, by `weights.kind`.
      mask_embeds: mask embeddings of every query in every frame.
      features: mask features, in the compute dtype.
      truth: targets with a leading batch axis.
      key: random key of the step, split per clip and set.
      weights: settings.

    Returns:
      "label", "mask" and "dice", normalised by the instances of the global batch.
    """
    sets, batch = class_logits.shape[:2]
    keys = jax.random.split(key, (sets, batch, 2))
    # No gradient from the start, so that nothing is stored for the matching.
    fixed = jax.lax.stop_gradient((class_logits, mask_embeds, features))
    matched = _match(*fixed, truth, keys[..., 0], weights)
    count = jnp.maximum(truth.valid.sum(), 1).astype(jnp.float32)
    label = _label_loss(class_logits, matched, truth, count, weights)
    cross = jnp.full((sets,), weights.cross_frame).at[0].set(0.0)

    def masks_of_set(embeds, matched, keys, cross):
        per_clip = jax.vmap(_mask_terms, (0, 0, 0, 0, 0, None, None))
        terms = per_clip(embeds, matched, features, truth, keys, cross, weights)
        return terms.sum(axis=0)  # over clips: [2]

    terms = jax.vmap(masks_of_set)(mask_embeds, matched, keys[..., 1], cross)
    mask, dice = terms.sum(axis=0) / count
    return {
        "label": weights.label * label,
        "mask": weights.mask * mask,
        "dice": weights.dice * dice,
    }


def _match(
    class_logits: Float32[Array, "L B Q K"],
    mask_embeds: Float32[Array, "L B T Q C"],
    features: Float[Array, "B T h w C"],
    truth: SetTruth,
    keys: Key[Array, "L B"] | UInt32[Array, "L B 2"],
    weights: Weights,
) -> Int32[Array, "L B M"]:
    """Returns the query of every instance."""

    def costs_of_set(args):  # one set at a time: features at P points are large
        logits, embeds, keys = args
        per_clip = jax.vmap(match_cost, (0, 0, 0, 0, 0, None))
        return per_clip(logits, embeds, features, truth, keys, weights)

    costs = jax.lax.map(costs_of_set, (class_logits, mask_embeds, keys))
    by_clip = jax.vmap(hungarian)
    return jax.vmap(by_clip, (0, None))(costs, truth.valid)


def match_cost(
    class_logits: Float32[Array, "Q K"],
    mask_embeds: Float32[Array, "T Q C"],
    features: Float[Array, "T h w C"],
    truth: SetTruth,
    key: PRNGKeyArray,
    weights: Weights,
) -> Float32[Array, "Q M"]:
    """Returns the cost of matching queries to instances (Eq. 4), at random points.

    All queries, instances and frames of a clip share the points. Features are sampled
    first and then multiplied with the embeddings, which is exact.
    """
    points = jax.random.uniform(key, (weights.points, 2))
    return match_cost_at(class_logits, mask_embeds, features, truth, points, weights)


def match_cost_at(
    class_logits: Float32[Array, "Q K"],
    mask_embeds: Float32[Array, "T Q C"],
    features: Float[Array, "T h w C"],
    truth: SetTruth,
    points: Float32[Array, "P 2"],
    weights: Weights,
) -> Float32[Array, "Q M"]:
    """Returns `match_cost` at the given points."""
    probs = jax.nn.softmax(class_logits, axis=-1)
    if weights.kind == "focal":
        probs = jax.nn.sigmoid(class_logits)
    labels = jnp.minimum(truth.labels, probs.shape[-1] - 1)
    at_points = jax.vmap(sample_channels, (0, None))(features, points)
    logits = jnp.einsum(
        "tqc,tpc->qtp",
        mask_embeds.astype(features.dtype),
        at_points,
        preferred_element_type=jnp.float32,
    )
    targets = _read_masks(truth.masks, points)
    # Padded frames: -inf would do, but a large finite logit keeps products finite.
    real = truth.frame_valid[None, :, None]
    logits = jnp.where(real, logits, -1e4).reshape(logits.shape[0], -1)
    targets = jnp.where(real, targets, 0.0).reshape(targets.shape[0], -1)
    # Padded frames add 0 to the logistic loss, so dividing by real frames gives its
    # mean.
    frames = jnp.maximum(truth.frame_valid.sum(), 1).astype(jnp.float32)
    bce = pairwise_bce(logits, targets) * (truth.frame_valid.shape[0] / frames)
    return (
        -weights.label * probs[:, labels]
        + weights.mask * bce
        + weights.dice * pairwise_dice(logits, targets)
    )


def _read_masks(
    masks: Bool[Array, "M T H W"], points: Float32[Array, "P 2"]
) -> Float32[Array, "M T P"]:
    """Samples masks bilinearly at shared points."""
    count, frames, height, width = masks.shape
    stacked = jnp.moveaxis(masks.reshape(-1, height, width), 0, -1)
    values = sample_channels(stacked.astype(jnp.float32), points)
    return jnp.moveaxis(values, -1, 0).reshape(count, frames, -1)


def _label_loss(
    class_logits: Float32[Array, "L B Q K"],
    matched: Int32[Array, "L B M"],
    truth: SetTruth,
    count: Float32[Array, ""],
    weights: Weights,
) -> Float32[Array, ""]:
    """Returns the class loss summed over sets; unmatched queries are no object."""
    background = class_logits.shape[-1] - (weights.kind == "ce")

    def assign(
        matched: Int32[Array, "M"], labels: Int32[Array, "M"], valid: Bool[Array, "M"]
    ) -> Int32[Array, "Q"]:
        # Padded instances write out of bounds, which JAX drops.
        index = jnp.where(valid, matched, class_logits.shape[2])
        empty = jnp.full((class_logits.shape[2],), background, jnp.int32)
        return empty.at[index].set(labels, mode="drop")

    by_clip = jax.vmap(assign)
    targets = jax.vmap(by_clip, (0, None, None))(matched, truth.labels, truth.valid)
    if isinstance(weights, Focal):
        return sigmoid_focal(class_logits, targets).sum() / count
    per_set = jax.vmap(weighted_cross_entropy, (0, 0, None))
    return per_set(class_logits, targets, weights.no_object).sum()


def _mask_terms(
    embeds: Float32[Array, "T Q C"],
    matched: Int32[Array, "M"],
    features: Float[Array, "T h w C"],
    truth: SetTruth,
    key: PRNGKeyArray,
    cross: Float32[Array, ""],
    weights: Weights,
) -> Float32[Array, "2"]:
    """Returns mask and dice loss of one set of one clip at random points."""
    count, frames = truth.masks.shape[:2]
    sources = frames if weights.cross_frame else 1
    candidates, rest = draw_sizes(weights.points)
    shape = (count, sources, frames, candidates + rest, 2)
    points = jax.random.uniform(key, shape)
    draws = (points[..., :candidates, :], points[..., candidates:, :])
    return mask_terms_at(embeds, matched, features, truth, draws, cross)


def mask_terms_at(
    embeds: Float32[Array, "T Q C"],
    matched: Int32[Array, "M"],
    features: Float[Array, "T h w C"],
    truth: SetTruth,
    draws: tuple[Float32[Array, "M S T N 2"], Float32[Array, "M S T R 2"]],
    cross: Float32[Array, ""] | float,
) -> Float32[Array, "2"]:
    """Returns mask and dice loss of matched queries, summed over instances and frames.

    Args:
      embeds: mask embeddings of every query in every frame.
      matched: query of each instance.
      features: mask features of every frame.
      truth: targets of the clip; an absent instance has an empty target, which counts.
      draws: uniform points for `uncertain_points`. S = 1: a frame's mask comes from
        its own queries. S = T: also from the queries of every other frame.
      cross: weight of masks predicted by another frame's queries.
    """
    frames, sources = truth.masks.shape[1], draws[0].shape[1]
    chosen = embeds[:, matched]
    fine = features.astype(jnp.float32)
    real = truth.frame_valid.astype(jnp.float32)
    if sources == 1:
        logits = jnp.einsum("tmc,thwc->mthw", chosen, fine)[:, None]
        weight = real[None]
    else:
        logits = jnp.einsum("smc,thwc->msthw", chosen, fine)
        same = jnp.eye(frames)
        weight = (same + cross * (1 - same)) * real[:, None] * real[None]
    weight = weight[None] * truth.valid[:, None, None].astype(jnp.float32)
    per_frame = jax.vmap(map_terms)  # over the frames of one source
    per_source = jax.vmap(per_frame, (0, None, 0, 0))
    per_instance = jax.vmap(per_source)
    masks = truth.masks.astype(jnp.float32)
    losses = per_instance(logits, masks, *draws)
    return jnp.sum(losses * weight[..., None], axis=(0, 1, 2))


def map_terms(
    logits: Float32[Array, "h w"],
    mask: Float32[Array, "H W"],
    candidates: Float32[Array, "N 2"],
    rest: Float32[Array, "R 2"],
) -> Float32[Array, "2"]:
    """Returns logistic and dice loss of one map."""
    points = uncertain_points(logits, candidates, rest)
    values, targets = sample(logits, points), sample(mask, points)
    return jnp.stack([point_bce(values, targets), point_dice(values, targets)])
