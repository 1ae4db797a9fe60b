"""Losses of queries that represent the same object in all frames of a clip.

Masks are compared at sampled points, as in Cheng et al., "Masked-attention Mask
Transformer", CVPR 2022; an object is matched in the first frame where it appears, as in
Zhang et al., "DVIS++", 2023. Letters: Q queries, M instance slots, P points, K1 classes
including no object; h w cells of a mask, H W pixels of the canvas.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.losses.classification import weighted_cross_entropy
from vis_jax.losses.mask import pairwise_bce, pairwise_dice
from vis_jax.losses.set_loss import Terms, map_terms
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.bilinear import sample_channels
from vis_jax.ops.sampling import draw_sizes
from vis_jax.settings import Share, section
from vis_jax.structures import Batch
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray


@section
class Settings(Terms):
    """`loss` of queries over a clip."""

    no_object: Share = 0.1  # weight of the no-object class
    # clip: an object keeps the query matched in the first frame where it appears;
    # frame: every frame is matched separately, like an image.
    matching: Literal["clip", "frame"] = "clip"
    # Class target of a matched query in frames without its object: still the object, as
    # the authors train it, or no object.
    absent_class: Literal["object", "no_object"] = "object"


class ClipTruth(NamedTuple):
    """Ground truth of one clip."""

    labels: Int32[Array, "*lead M"]
    masks: Bool[Array, "*lead M T H W"]
    present: Bool[Array, "*lead M T"]  # instances by frame; False in padding
    frame_valid: Bool[Array, "*lead T"]


class Draws(NamedTuple):
    """Uniform points, x and y in [0, 1], for one prediction of one clip."""

    match: Float32[Array, "*lead T P 2"]
    candidates: Float32[Array, "*lead M T N 2"]  # for `uncertain_points`
    rest: Float32[Array, "*lead M T R 2"]


def truth_of(batch: Batch) -> ClipTruth:
    """Returns the targets of every clip, with a leading batch axis."""
    seen = batch.instance_valid[..., None] & batch.frame_valid[:, None]
    return ClipTruth(batch.labels, batch.masks, batch.present & seen, batch.frame_valid)


def frames_apart(truth: ClipTruth) -> ClipTruth:
    """Splits clips into clips of one frame each: [B, ..] to [B T, ..]."""
    count, frames = truth.frame_valid.shape
    masks = truth.masks.swapaxes(1, 2)
    return ClipTruth(
        jnp.repeat(truth.labels, frames, axis=0),
        masks.reshape(count * frames, masks.shape[2], 1, *masks.shape[3:]),
        truth.present.swapaxes(1, 2).reshape(count * frames, -1, 1),
        truth.frame_valid.reshape(-1, 1),
    )


def draw_points(key: PRNGKeyArray, truth: ClipTruth, points: int) -> Draws:
    """Draws points for one prediction of clips with a leading axis."""
    clips, slots, frames = truth.present.shape
    candidates, rest = draw_sizes(points)
    keys = jax.random.split(key, 3)
    uniform = jax.random.uniform
    return Draws(
        uniform(keys[0], (clips, frames, points, 2)),
        uniform(keys[1], (clips, slots, frames, candidates, 2)),
        uniform(keys[2], (clips, slots, frames, rest, 2)),
    )


def match_cost(
    class_logits: Float32[Array, "Q K1"],
    masks: Float32[Array, "Q h w"],
    labels: Int32[Array, "M"],
    targets: Bool[Array, "M H W"],
    points: Float32[Array, "P 2"],
    weights: Settings,
) -> Float32[Array, "Q M"]:
    """Returns the cost of matching each query to each instance in one frame."""
    at_points = sample_channels(jnp.moveaxis(masks, 0, -1), points).T
    wanted = jnp.moveaxis(targets.astype(jnp.float32), 0, -1)
    wanted = sample_channels(wanted, points).T
    probs = jax.nn.softmax(class_logits, axis=-1)
    labels = jnp.minimum(labels, probs.shape[-1] - 2)  # padding may hold any label
    return (
        -weights.label * probs[:, labels]
        + weights.mask * pairwise_bce(at_points, wanted)
        + weights.dice * pairwise_dice(at_points, wanted)
    )


def match_at_first_sight(
    class_logits: Float32[Array, "T Q K1"],
    masks: Float32[Array, "T Q h w"],
    truth: ClipTruth,
    points: Float32[Array, "T P 2"],
    weights: Settings,
    known: Int32[Array, "M"] | None = None,
) -> Int32[Array, "M"]:
    """Returns each instance's query in one clip; -1 for instances in no frame.

    Frame by frame, newly appearing instances are matched to the free queries.

    Args:
      class_logits, masks: of one prediction.
      truth: ground truth of one clip, without a leading axis.
      points: points of each frame, shared by all queries and instances.
      weights: settings.
      known: queries of instances matched before this clip; -1 = none.
    """
    queries = class_logits.shape[1]
    begin = known
    if begin is None:
        begin = jnp.full((len(truth.labels),), -1, jnp.int32)

    def of_frame(matched, frame):
        logits, maps, targets, here, at = frame
        new = here & (matched < 0)
        cost = match_cost(logits, maps, truth.labels, targets, at, weights)
        index = jnp.where(matched >= 0, matched, queries)
        taken = jnp.zeros((queries,), bool).at[index].set(True, mode="drop")
        # Above every other cost, but of comparable magnitude: a free query, of which
        # there are enough, is then better in any matching.
        cost = jnp.where(jnp.isfinite(cost), cost, 1e6)
        dear = 2.0 * cost.max() - cost.min() + 1.0
        rows = hungarian(jnp.where(taken[:, None], dear, cost), new)
        return jnp.where(new, rows, matched), None

    by_frame = (
        class_logits,
        masks,
        truth.masks.swapaxes(0, 1),
        truth.present.T,
        points,
    )
    return jax.lax.scan(of_frame, begin, by_frame)[0]


def class_targets(
    matched: Int32[Array, "M"], truth: ClipTruth, shape: tuple[int, int], absent: str
) -> Int32[Array, "T Q"]:
    """Returns the target class of every query in every frame of one clip.

    Args:
      matched: from `match_at_first_sight`.
      truth: ground truth of the clip.
      shape: number of queries, and the class of unmatched ones.
      absent: `Settings.absent_class`.
    """
    queries, empty = shape
    index = jnp.where(matched >= 0, matched, queries)

    def of_frame(present: Bool[Array, "M"]) -> Int32[Array, "Q"]:
        labels = truth.labels
        if absent == "no_object":
            labels = jnp.where(present, labels, empty)
        targets = jnp.full((queries,), empty, jnp.int32)
        return targets.at[index].set(labels, mode="drop")

    return jax.vmap(of_frame)(truth.present.T)


def clip_terms(
    class_logits: Float32[Array, "B T Q K1"],
    masks: Float32[Array, "B T Q h w"],
    truth: ClipTruth,
    draws: Draws,
    matched: Int32[Array, "B M"],
    weights: Settings,
) -> dict[str, Float32[Array, ""]]:
    """Returns the weighted loss terms of one prediction of B clips, given matches.

    Masks are normalised by the number of (instance, frame) pairs, including frames
    without the instance, where the target mask is empty.
    """
    queries, outputs = class_logits.shape[2:]
    targets = jax.vmap(
        lambda one, of: class_targets(
            one, of, (queries, outputs - 1), weights.absent_class
        )
    )(matched, truth)
    frames = jnp.broadcast_to(truth.frame_valid[..., None], targets.shape)
    label = weighted_cross_entropy(
        class_logits, targets, weights.no_object, counted=frames
    )
    real = (matched >= 0)[..., None] & truth.frame_valid[:, None]
    count = jnp.maximum(real.sum(), 1).astype(jnp.float32)
    # Masks of matched queries, [B, M, T, h, w].
    chosen = jnp.maximum(matched, 0)[:, None, :, None, None]
    chosen = jnp.take_along_axis(masks, chosen, axis=2).swapaxes(1, 2)
    per_pair = jax.vmap(jax.vmap(jax.vmap(map_terms)))
    wanted = (truth.masks & truth.present[..., None, None]).astype(jnp.float32)
    terms = per_pair(chosen, wanted, draws.candidates, draws.rest)
    terms = jnp.where(real[..., None], terms, 0.0).sum(axis=(0, 1, 2)) / count
    return {
        "label": weights.label * label,
        "mask": weights.mask * terms[0],
        "dice": weights.dice * terms[1],
    }


def match_clips(
    class_logits: Float32[Array, "B T Q K1"],
    masks: Float32[Array, "B T Q h w"],
    truth: ClipTruth,
    points: Float32[Array, "B T P 2"],
    weights: Settings,
    known: Int32[Array, "B M"] | None = None,
) -> Int32[Array, "B M"]:
    """Applies `match_at_first_sight` to B clips, without gradient."""
    fixed = jax.lax.stop_gradient((class_logits, masks))
    if known is None:
        known = jnp.full(truth.labels.shape, -1, jnp.int32)

    def of_clip(one):  # one clip at a time: masks at P points are large
        logits, maps, targets, at, before = one
        return match_at_first_sight(logits, maps, targets, at, weights, before)

    return jax.lax.map(of_clip, (*fixed, truth, points, known))
