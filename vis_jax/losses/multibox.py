"""Losses of YOLACT on priors, with hard negative mining; one image.

Bolya et al., "YOLACT: Real-time instance segmentation", ICCV 2019, section 3.3, and the
`MultiBoxLoss` of its released code; Liu et al., "SSD", ECCV 2016. Every term is a sum;
`multibox_losses` normalises as in the released code. Letters: P priors, M ground-truth
objects, C classes including the background, which comes first; Q prototypes; h w cells
of the prototypes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vis_jax.losses.rcnn import smooth_l1
from vis_jax.ops.bilinear import resize
from vis_jax.ops.box_coder import BoxCoder, encode
from vis_jax.ops.boxes import box_area, box_iou
from vis_jax.ops.masks import inside_boxes
from vis_jax.ops.sampling import sample_positives
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

# From the released code: share of a prior that a crowd must cover to make it ignored,
# and prototype cells around a box that its mask may cover, in training those around the
# ground-truth box.
_CROWD_SHARE = 0.7
CROP_MARGIN = 1.0
_LOWEST_LOG = -100.0  # bound on log probabilities, as in PyTorch


class PriorRule(NamedTuple):
    """Assignment of priors and selection of those to train.

    Attributes:
      positive: least IoU of a positive with a ground-truth box.
      negative: IoU below which a prior is negative; in between it is ignored.
      negatives: hard negatives per positive.
      masks: most positives per image whose masks are trained.
    """

    positive: float
    negative: float
    negatives: int
    masks: int


class ImageObjects(NamedTuple):
    """Ground-truth objects of images."""

    boxes: Float32[Array, "*lead M 4"]  # pixels
    labels: Int32[Array, "*lead M"]  # 0 .. K - 1, without the background
    masks: Bool[Array, "*lead M H W"]
    valid: Bool[Array, "*lead M"]
    crowd: Bool[Array, "*lead M"]  # a group; ignored, but for its extent


class YolactOutput(NamedTuple):
    """Network output for images."""

    class_logits: Float32[Array, "*lead P C"]  # background first
    deltas: Float32[Array, "*lead P 4"]  # from priors to boxes
    coefficients: Float32[Array, "*lead P Q"]  # in -1 .. 1
    prototypes: Float32[Array, "*lead h w Q"]  # at a quarter of the canvas, from 0
    semantic_logits: Float32[Array, "*lead h2 w2 K"]  # at an eighth; training only


class PriorMatch(NamedTuple):
    """Match of each prior; neither positive nor negative = ignored."""

    truth: Int32[Array, "*lead P"]  # used where positive
    positive: Bool[Array, "*lead P"]
    negative: Bool[Array, "*lead P"]


class MultiboxLosses(NamedTuple):
    """Unweighted losses of a batch, or sums over one image."""

    classes: Float32[Array, "*lead"]
    boxes: Float32[Array, "*lead"]
    masks: Float32[Array, "*lead"]
    semantic: Float32[Array, "*lead"]
    left_out: Float32[Array, "*lead"]  # positives whose masks were not trained


def multibox_losses(
    rng: PRNGKeyArray,
    out: YolactOutput,
    objects: ImageObjects,
    *,
    image_valid: Bool[Array, "B"],
    priors: Float32[Array, "P 4"],
    coder: BoxCoder,
    rule: PriorRule,
) -> MultiboxLosses:
    """Returns the losses of a batch of images.

    Class, box and mask losses are divided by the number of positives, the semantic loss
    by the number of images. Deviation: without positives the released code divides by
    0.

    Args:
      rng: key for sampling the positives whose masks are trained.
      out: with leading axis B.
      objects: with leading axis B.
      image_valid: False marks images to ignore.
      priors: in pixels.
      coder: box coder of the deltas.
      rule: see the type.
    """

    def one(
        key: PRNGKeyArray, out: YolactOutput, objects: ImageObjects
    ) -> tuple[MultiboxLosses, Int32[Array, ""]]:
        return _image_losses(key, out, objects, priors=priors, coder=coder, rule=rule)

    keys = jax.random.split(rng, len(image_valid))
    sums, positives = jax.vmap(one)(keys, out, objects)
    sums = jax.tree.map(lambda x: jnp.where(image_valid, x, 0.0).sum(), sums)
    count = jnp.where(image_valid, positives, 0).sum()
    count = jnp.maximum(count, 1).astype(jnp.float32)
    images = jnp.maximum(image_valid.sum(), 1).astype(jnp.float32)
    return MultiboxLosses(
        sums.classes / count,
        sums.boxes / count,
        sums.masks / count,
        sums.semantic / images,
        sums.left_out,
    )


def _image_losses(
    rng: PRNGKeyArray,
    out: YolactOutput,
    objects: ImageObjects,
    *,
    priors: Float32[Array, "P 4"],
    coder: BoxCoder,
    rule: PriorRule,
) -> tuple[MultiboxLosses, Int32[Array, ""]]:
    """Returns the sums over one image, and the number of its positives."""
    match = match_priors(priors, objects, rule=rule)
    boxes = objects.boxes[match.truth]
    real = objects._replace(valid=objects.valid & ~objects.crowd)
    masks = mask_loss(
        rng, out.prototypes, out.coefficients, real, match=match, most=rule.masks
    )
    errors = smooth_l1(out.deltas, encode(boxes, priors, coder=coder), 1.0)
    losses = MultiboxLosses(
        class_loss(
            out.class_logits, objects.labels, match=match, negatives=rule.negatives
        ),
        jnp.where(match.positive, errors, 0.0).sum(),
        masks.loss,
        semantic_loss(out.semantic_logits, real),
        masks.left_out,
    )
    return losses, match.positive.sum()


def match_priors(
    priors: Float32[Array, "P 4"], objects: ImageObjects, *, rule: PriorRule
) -> PriorMatch:
    """Matches each prior to its best ground-truth box; every box gets a prior.

    The (box, prior) pair with the highest IoU is matched first, then the best of the
    remaining pairs, until every ground-truth box has a prior. Non-positive priors
    covered by a crowd are ignored.

    Args:
      priors: in pixels.
      objects: objects of one image.
      rule: see the type.
    """
    real = objects.valid & ~objects.crowd
    iou = jnp.where(real[:, None], box_iou(objects.boxes, priors), -1.0)
    best = iou.max(axis=0)
    truth = iou.argmax(axis=0).astype(jnp.int32)

    def force(_, state):
        left, best, truth = state
        place = left.argmax()
        row, column = place // left.shape[1], place % left.shape[1]
        found = left[row, column] >= 0
        best = best.at[column].set(jnp.where(found, 2.0, best[column]))
        truth = truth.at[column].set(jnp.where(found, row, truth[column]))
        return left.at[row].set(-1.0).at[:, column].set(-1.0), best, truth

    _, best, truth = jax.lax.fori_loop(0, len(real), force, (iou, best, truth))
    positive = best >= rule.positive
    crowded = _crowd_share(priors, objects) > _CROWD_SHARE
    return PriorMatch(truth, positive, (best < rule.negative) & ~crowded)


def _crowd_share(
    priors: Float32[Array, "P 4"], objects: ImageObjects
) -> Float32[Array, "P"]:
    """Returns the largest share of each prior covered by a single crowd."""
    crowd = objects.valid & objects.crowd
    low = jnp.maximum(priors[:, None, :2], objects.boxes[None, :, :2])
    high = jnp.minimum(priors[:, None, 2:], objects.boxes[None, :, 2:])
    both = box_area(jnp.concatenate([low, high], axis=-1))
    return jnp.where(crowd[None], both / box_area(priors)[:, None], 0.0).max(axis=1)


def class_loss(
    class_logits: Float32[Array, "P C"],
    labels: Int32[Array, "M"],
    *,
    match: PriorMatch,
    negatives: int,
) -> Float32[Array, ""]:
    """Returns the cross-entropy of the positives and of the hardest negatives.

    Negatives are ranked by lowest background probability; an image without positives
    has none.

    Args:
      class_logits: the first class is the background.
      labels: labels of the ground-truth objects, 0 .. K - 1.
      match: match of the priors.
      negatives: number per positive; at least one prior is left out.
    """
    hardness = jax.nn.logsumexp(class_logits, axis=-1) - class_logits[:, 0]
    hardness = jnp.where(match.negative, jax.lax.stop_gradient(hardness), 0.0)
    # Stable: on ties the first counts as harder.
    rank = jnp.argsort(jnp.argsort(-hardness, stable=True), stable=True)
    wanted = jnp.minimum(negatives * match.positive.sum(), len(rank) - 1)
    hard = match.negative & (rank < wanted)
    targets = jnp.where(match.positive, labels[match.truth] + 1, 0)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        class_logits, targets
    )
    return jnp.where(match.positive | hard, losses, 0.0).sum()


class MaskLoss(NamedTuple):
    """Mask loss of one image."""

    loss: Float32[Array, ""]
    left_out: Float32[Array, ""]  # positives not sampled


def mask_loss(
    rng: PRNGKeyArray,
    prototypes: Float32[Array, "h w Q"],
    coefficients: Float32[Array, "P Q"],
    objects: ImageObjects,
    *,
    match: PriorMatch,
    most: int,
) -> MaskLoss:
    """Returns the cross-entropy of positives' masks, each divided by its box size.

    Predicted masks are cropped to the ground-truth box. The sum over the canvas's cells
    is divided by the cells of the box. If there are more than `most` positives, a
    random subset represents them.

    Args:
      rng: random key.
      prototypes: at a quarter of the canvas.
      coefficients: coefficients of the priors.
      objects: ground truth; masks are compared at prototype resolution.
      match: match of the priors.
      most: most positives trained.
    """
    cells = (prototypes.shape[0], prototypes.shape[1])
    canvas = (objects.masks.shape[1], objects.masks.shape[2])
    subset = sample_positives(rng, match.positive, most=most)
    truth = match.truth[subset.chosen]
    logits = jnp.einsum("hwq,nq->nhw", prototypes, coefficients[subset.chosen])
    inside = inside_boxes(objects.boxes, cells, canvas, margin=CROP_MARGIN)[truth]
    wanted = reduced_masks(objects.masks, cells)[truth]
    losses = _cut_cross_entropy(logits, wanted, inside).sum(axis=(1, 2))
    area = box_area(objects.boxes)[truth] * (cells[0] * cells[1])
    area = area / (canvas[0] * canvas[1])
    losses = losses / jnp.where(subset.counted, area, 1.0)
    total = jnp.where(subset.counted, losses, 0.0).sum() * subset.share
    return MaskLoss(total, subset.left_out)


def _cut_cross_entropy(
    logits: Float32[Array, "N h w"],
    wanted: Bool[Array, "N h w"],
    inside: Bool[Array, "N h w"],
) -> Float32[Array, "N h w"]:
    """Returns the cross-entropy of probabilities that are 0 outside; logs >= -100."""
    log_true = jnp.where(wanted, jax.nn.log_sigmoid(logits), 0.0)
    log_false = jnp.where(wanted, 0.0, jax.nn.log_sigmoid(-logits))
    missed = jnp.where(wanted, -_LOWEST_LOG, 0.0)
    found = -jnp.maximum(log_true + log_false, _LOWEST_LOG)
    return jnp.where(inside, found, missed)


def semantic_loss(
    semantic_logits: Float32[Array, "h w K"], objects: ImageObjects
) -> Float32[Array, ""]:
    """Returns the logistic loss, summed over classes and averaged over cells.

    Args:
      semantic_logits: without the background.
      objects: a cell has the classes of all ground-truth masks that cover it.
    """
    cells = (semantic_logits.shape[0], semantic_logits.shape[1])
    masks = reduced_masks(objects.masks, cells) & objects.valid[:, None, None]
    of_class = jax.nn.one_hot(objects.labels, semantic_logits.shape[2])
    wanted = jnp.einsum("mhw,mk->hwk", masks.astype(jnp.float32), of_class)
    losses = optax.losses.sigmoid_binary_cross_entropy(
        semantic_logits, jnp.minimum(wanted, 1.0)
    )
    return losses.sum() / (cells[0] * cells[1])


def reduced_masks(
    masks: Bool[Array, "M H W"], size: tuple[int, int]
) -> Bool[Array, "M _ _"]:
    """Resizes masks bilinearly without antialiasing, thresholded at a half."""
    small = resize(masks.astype(jnp.float32)[..., None], size)
    return small[..., 0] > 0.5
