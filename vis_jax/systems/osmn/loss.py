"""Training of the one-shot modulation network on clips.

Yang et al., "Efficient Video Object Segmentation via Network Modulation", CVPR 2018,
and its code: the network is shown an object's appearance in some frame and its rough
position in the previous frame, and must segment it. Letters: B clips, M instances, O of
them sampled, S side of the visual guide.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.structures import Batch, LossAux
from vis_jax.systems.osmn.guides import (
    CropView,
    ObjectExtent,
    place_of,
    spatial_guide,
    visual_guide,
)
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray

# A frame may provide the visual guide of an object that covers more than this ..
_SHARE_OF_IMAGE, _SHARE_OF_BOX = 0.003, 0.2
# .. and the crop is jittered, rotated and flipped:
_SIDE_SHIFT = 0.1  # fraction of the box's width or height, for each side
_LARGEST_ANGLE = 10.0  # degrees
# The position in the previous frame is shifted and scaled:
_CENTRE_SHIFT = 0.2  # fraction of sigma
_SIGMA_FACTORS = (1 / 1.4, 1.4)


class OsmnTrainRule(NamedTuple):
    """Training rules of the network.

    Attributes:
      objects: O, most objects per clip; all are segmented in the same frame.
      guide_side: pixels, 224 in the paper.
      train_norm: batch norm uses batch statistics; False uses and keeps the running
        ones, as in the authors' second stage.
    """

    objects: int
    guide_side: int
    train_norm: bool


class SampledObjects(NamedTuple):
    """Objects and frames sampled from one clip."""

    target: Int32[Array, ""]  # the frame to segment
    before: Int32[Array, ""]  # the previous frame; the same in clips of one frame
    objects: Int32[Array, "O"]
    guides: Int32[Array, "O"]  # frame of each object's visual guide
    valid: Bool[Array, "O"]
    left_out: Int32[Array, ""]  # usable objects beyond O


class Examples(NamedTuple):
    """Network input and ground truth for one clip."""

    image: Float32[Array, "H W 3"]
    guides: Float32[Array, "O S S 3"]
    heat: Float32[Array, "O H W"]
    masks: Bool[Array, "O H W"]  # ground truth
    valid: Bool[Array, "O"]
    left_out: Int32[Array, ""]  # see `SampledObjects`


def osmn_loss(
    model: nn.Module,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
    *,
    rule: OsmnTrainRule,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the balanced logistic loss summed over the pixels of all sampled objects.

    Args:
      model: an `OSMN`.
      variables: its own: 'params' and 'batch_stats'.
      batch: clips, possibly of one frame, which is then both guide and target.
      rng: key for sampling, guide perturbation and dropout.
      rule: selects the objects to segment, and the guides.

    Returns:
      The loss, and with it the statistics of batch norm after it, those of the network
      alone.
    """
    rng, dropout = jax.random.split(rng)
    keys = jax.random.split(rng, batch.images.shape[0])

    def one(clip: Batch, key: PRNGKeyArray) -> Examples:
        return examples(clip, key, rule=rule, style=model.style)

    found = jax.vmap(one)(batch, keys)
    guides, heat, masks, valid = (
        x.reshape(-1, *x.shape[2:])
        for x in (found.guides, found.heat, found.masks, found.valid)
    )
    logits, updates = model.apply(
        variables,
        guides,
        found.image,
        heat,
        valid=valid,
        train=True,
        train_norm=rule.train_norm,
        rngs={"dropout": dropout},
        mutable=["batch_stats"],
    )
    inside = jax.vmap(lambda size: _content(size, batch.images.shape[2:4]))(batch.sizes)
    inside = jnp.repeat(inside, logits.shape[0] // inside.shape[0], axis=0)
    value = balanced_bce(logits, masks, inside & valid[:, None, None])
    stats = updates["batch_stats"]
    left_out = found.left_out.sum().astype(jnp.float32)
    return value, LossAux({"osmn": value}, stats, {"objects_left_out": left_out})


def examples(
    clip: Batch, rng: PRNGKeyArray, *, rule: OsmnTrainRule, style: str
) -> Examples:
    """Samples from one clip, a `Batch` without its first axis, and makes the guides."""
    choose_key, look_key, place_key = jax.random.split(rng, 3)
    choice = choose(clip, choose_key, objects=rule.objects)
    images = normalize(clip.images, clip.sizes, style=style)
    size = (images.shape[1], images.shape[2])

    def look(
        key: PRNGKeyArray, number: Int32[Array, ""], frame: Int32[Array, ""]
    ) -> Float32[Array, "S S 3"]:
        view = _perturb_view(clip.boxes[number, frame], key)
        mask = clip.masks[number, frame]
        return visual_guide(images[frame], mask, view, side=rule.guide_side)

    def heat(key: PRNGKeyArray, number: Int32[Array, ""]) -> Float32[Array, "H W"]:
        place = place_of(clip.masks[number, choice.before])
        return spatial_guide(_perturb_place(place, key), size=size)

    count = choice.objects.shape[0]
    look_keys, place_keys = (jax.random.split(k, count) for k in (look_key, place_key))
    return Examples(
        image=images[choice.target],
        guides=jax.vmap(look)(look_keys, choice.objects, choice.guides),
        heat=jax.vmap(heat)(place_keys, choice.objects),
        masks=clip.masks[choice.objects, choice.target],
        valid=choice.valid,
        left_out=choice.left_out,
    )


def choose(clip: Batch, rng: PRNGKeyArray, *, objects: int) -> SampledObjects:
    """Samples a frame to segment, objects in it and in the previous one, and guides.

    All are drawn uniformly. Deviation: the objects of a clip share the frame, so that
    the first layers run once; in the authors' code each object has its own.
    """
    frame_key, object_key, guide_key = jax.random.split(rng, 3)
    count, frames = clip.present.shape
    good = _shows_well(clip)
    pairs = clip.present & clip.frame_valid[None]
    if frames > 1:
        first = jnp.zeros((count, 1), bool)
        pairs &= jnp.concatenate([first, pairs[:, :-1]], axis=1)
    pairs &= good.any(axis=1)[:, None]
    target = _draw(frame_key, pairs.any(axis=0))
    usable = pairs[:, target]
    order = jnp.where(usable, jax.random.uniform(object_key, (count,)), 2.0)
    chosen = jnp.argsort(order)[:objects].astype(jnp.int32)
    keys = jax.random.split(guide_key, chosen.shape[0])
    return SampledObjects(
        target=target,
        before=jnp.maximum(target - 1, 0),
        objects=chosen,
        guides=jax.vmap(_draw)(keys, good[chosen]),
        valid=usable[chosen],
        left_out=jnp.maximum(usable.sum() - chosen.shape[0], 0).astype(jnp.int32),
    )


def _shows_well(clip: Batch) -> Bool[Array, "M T"]:
    """Returns the frames in which an object is neither small nor mostly hidden."""
    area = clip.masks.sum(axis=(2, 3)).astype(jnp.float32)
    sides = clip.boxes[..., 2:] - clip.boxes[..., :2]
    height, width = clip.sizes.astype(jnp.float32)
    good = area > _SHARE_OF_IMAGE * height * width
    good &= area > _SHARE_OF_BOX * sides[..., 0] * sides[..., 1]
    good &= clip.present & clip.frame_valid[None]
    return good & clip.instance_valid[:, None]


def _draw(key: PRNGKeyArray, allowed: Bool[Array, "L"]) -> Int32[Array, ""]:
    """Draws one of the allowed indices; 0 if there is none."""
    scores = jax.random.uniform(key, allowed.shape)
    return jnp.argmax(jnp.where(allowed, scores, -1.0)).astype(jnp.int32)


def _perturb_view(box: Float32[Array, "4"], key: PRNGKeyArray) -> CropView:
    shift_key, angle_key, flip_key = jax.random.split(key, 3)
    shift = jax.random.uniform(shift_key, (4,), minval=-1.0, maxval=1.0)
    angle = jax.random.uniform(angle_key, minval=-1.0, maxval=1.0)
    extent = jnp.tile(box[2:] - box[:2], 2)
    return CropView(
        box + _SIDE_SHIFT * shift * extent,
        angle * jnp.deg2rad(_LARGEST_ANGLE),
        jax.random.bernoulli(flip_key),
    )


def _perturb_place(place: ObjectExtent, key: PRNGKeyArray) -> ObjectExtent:
    centre_key, sigma_key = jax.random.split(key)
    low, high = _SIGMA_FACTORS
    shift = jax.random.uniform(centre_key, (2,), minval=-1.0, maxval=1.0)
    factor = jax.random.uniform(sigma_key, (2,), minval=low, maxval=high)
    centre = place.centre + _CENTRE_SHIFT * shift * place.sigma
    return ObjectExtent(centre, factor * place.sigma)


def _content(size: Int32[Array, "2"], canvas: tuple[int, ...]) -> Bool[Array, "H W"]:
    """Returns the pixels of a canvas that are not padding."""
    rows = jnp.arange(canvas[0], dtype=jnp.int32) < size[0]
    columns = jnp.arange(canvas[1], dtype=jnp.int32) < size[1]
    return rows[:, None] & columns[None]


def balanced_bce(
    logits: Float32[Array, "*N"], targets: Bool[Array, "*N"], counts: Bool[Array, "*N"]
) -> Float32[Array, ""]:
    """Returns (N- / N) sum of positive losses + (N+ / N) sum of negative losses.

    N+ and N- count over everything given: pixels, objects and images together. Xie and
    Tu, "Holistically-Nested Edge Detection", ICCV 2015, Eq. 2; in the code of OSMN.

    Args:
      logits: logits of each pixel.
      targets: True for pixels of the object.
      counts: False marks ignored pixels.
    """
    losses = jax.nn.softplus(jnp.where(targets, -logits, logits))
    positive, negative = counts & targets, counts & ~targets
    n_positive, n_negative = (x.sum(dtype=jnp.float32) for x in (positive, negative))
    total = jnp.maximum(n_positive + n_negative, 1.0)
    weights = jnp.where(positive, n_negative / total, 0.0)
    weights = jnp.where(negative, n_positive / total, weights)
    return (weights * losses).sum()
