"""Losses of the second stage of RGNNVIS: association, class and mask of tracks.

Johnander et al., "Video instance segmentation with recurrent graph neural networks",
GCPR 2021 and IJCV 2022, section "Training". Every loss is a sum: match and start losses
over the pairs and detections of one clip, to be divided by the batch's valid frames;
the class loss over the tracks of one clip, to be divided by the clips; the mask loss is
one value per frame, to be averaged over valid frames. The paper's weights are 4, 1, 1
and 1. The targets are those of `association.track_truth`. Letters: L frames, M track
slots, N detections per frame, C classes including the background, which comes first; G
ground-truth objects of the clip; h w cells of a predicted mask, y x the pixels of the
canvas at which masks are compared.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vis_jax.losses.lovasz import lovasz_class
from vis_jax.typing import Array, Bool, Float32, Int32

_DECAY = 0.8  # weight of a frame relative to the next, in the class loss
_RELEASED_SCALE = 0.285  # with it these weights sum to 1.0176 over 10 frames


def match_loss(
    match_logits: Float32[Array, "L M N"],
    targets: Bool[Array, "L M N"],
    *,
    pairs: Bool[Array, "L M N"],
    frame_valid: Bool[Array, "L"],
) -> Float32[Array, ""]:
    """Sums the logistic loss over pairs of a track and a detection.

    Args:
      match_logits: logits of the pairs showing the same object.
      targets: see `match_targets`.
      pairs: the track was in memory before the frame, and the detection is real.
      frame_valid: False marks frames to ignore.
    """
    return _logistic_sum(match_logits, targets, pairs & frame_valid[:, None, None])


def start_loss(
    start_logits: Float32[Array, "L N"],
    targets: Bool[Array, "L N"],
    *,
    valid: Bool[Array, "L N"],
    frame_valid: Bool[Array, "L"],
) -> Float32[Array, ""]:
    """Sums the logistic loss over detections.

    Args:
      start_logits: logits of detections being objects without a track.
      targets: see `start_targets`.
      valid: False marks detections that are padding.
      frame_valid: False marks frames to ignore.
    """
    return _logistic_sum(start_logits, targets, valid & frame_valid[:, None])


def _logistic_sum(
    logits: Float32[Array, "*N"], targets: Bool[Array, "*N"], counts: Bool[Array, "*N"]
) -> Float32[Array, ""]:
    """Sums over valid entries; others may hold any value, also in the gradient."""
    logits = jnp.where(counts, logits, 0.0)
    losses = jax.nn.softplus(jnp.where(targets, -logits, logits))
    return jnp.where(counts, losses, 0.0).sum()


def frame_weights(
    frame_valid: Bool[Array, "L"], *, normalised: bool
) -> Float32[Array, "L"]:
    """Returns the weight of each frame in the class loss: highest for the last.

    Args:
      frame_valid: False marks padded frames, with weight 0.
      normalised: weights of a clip sum to 1, as in the paper; False: fixed weights
        0.285 * 0.8^(l + 1) for the frame followed by l others, as in the released code.
    """
    followers = jnp.cumsum(frame_valid[::-1])[::-1] - 1
    weights = _DECAY ** followers.astype(jnp.float32)
    weights = jnp.where(frame_valid, weights, 0.0)
    if not normalised:
        return _RELEASED_SCALE * _DECAY * weights
    return weights / jnp.maximum(weights.sum(), 1.0)  # the last frame has 1


def score_loss(
    class_logits: Float32[Array, "L M C"],
    classes: Int32[Array, "M"],
    *,
    scored: Bool[Array, "L M"],
    weights: Float32[Array, "L"],
) -> Float32[Array, ""]:
    """Returns the weighted cross-entropy of classes, summed over tracks and frames.

    Args:
      class_logits: class logits of the tracks after each frame.
      classes: see `class_targets`.
      scored: see `scored_tracks`.
      weights: see `frame_weights`.
    """
    counts = scored & (weights > 0)[:, None]
    logits = jnp.where(counts[..., None], class_logits, 0.0)
    classes = jnp.broadcast_to(classes, counts.shape)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, classes)
    return jnp.where(counts, losses * weights[:, None], 0.0).sum()


class MaskTruth(NamedTuple):
    """Ground truth at the pixels used by the mask loss."""

    objects: Int32[Array, "L y x"]  # 1 .. G; 0 = none
    counts: Bool[Array, "L y x"]  # False ignores a pixel


def mask_truth(
    masks: Bool[Array, "G L H W"],
    frame_valid: Bool[Array, "L"],
    size: Int32[Array, "2"],
    *,
    stride: int,
) -> MaskTruth:
    """Returns the object at every `stride`-th row and column, from `stride // 2` on.

    Where objects overlap, the one with the lowest index wins.

    Args:
      masks: masks of all objects, False for padded objects.
      frame_valid: False marks frames to ignore.
      size: height and width of the content, at the top left; the rest is ignored.
      stride: 1 uses every pixel.
    """
    rows, columns = (
        jnp.arange(stride // 2, length, stride) for length in masks.shape[2:]
    )
    seen = masks[:, :, stride // 2 :: stride, stride // 2 :: stride]
    objects = jnp.where(seen.any(axis=0), seen.argmax(axis=0) + 1, 0)
    content = (rows < size[0])[:, None] & (columns < size[1])[None]
    counts = frame_valid[:, None, None] & content[None]
    return MaskTruth(objects.astype(jnp.int32), counts)


def segmentation_loss(
    mask_logits: Float32[Array, "L M h w"],
    truth: MaskTruth,
    slots: Int32[Array, "L G"],
    *,
    canvas: tuple[int, int],
    stride: int,
    background: float,
) -> Float32[Array, "L"]:
    """Returns each frame's Lovász-softmax, mean over its objects and the background.

    Masks are upsampled bilinearly to the canvas and compared at the pixels of
    `mask_truth`, by a softmax over the background and all tracks. Objects without a
    track are background. Frames may come from one clip or several. They are processed
    one by one, and per frame only the channels present are sorted; under `jax.vmap` all
    would be.

    Args:
      mask_logits: mask logits of the slots, very low for inactive tracks.
      truth: see the type.
      slots: see `object_slots`.
      canvas: H and W in pixels.
      stride: see `mask_truth`.
      background: constant logit of the background.

    Returns:
      The loss of each frame, 0 where all pixels are ignored.
    """

    def of_frame(
        frame: tuple[
            Float32[Array, "M h w"],
            Int32[Array, "y x"],
            Bool[Array, "y x"],
            Int32[Array, "G"],
        ],
    ) -> Float32[Array, ""]:
        logits, objects, counts, slots = frame
        logits = _at_pixels(logits, canvas, stride).reshape(len(logits), -1)
        return _frame_loss(
            jnp.pad(logits, ((1, 0), (0, 0)), constant_values=background),
            objects.reshape(-1),
            counts.reshape(-1),
            slots=slots,
        )

    # Without the checkpoint, sorted channels of every frame would be kept.
    return jax.lax.map(jax.checkpoint(of_frame), (mask_logits, *truth, slots))


def _at_pixels(
    maps: Float32[Array, "M h w"], canvas: tuple[int, int], stride: int
) -> Float32[Array, "M y x"]:
    """Samples maps over the canvas at the pixels of `mask_truth`.

    Equals a bilinear resize to the canvas with half-pixel centres, without computing
    the pixels in between.
    """
    counts = [len(range(stride // 2, length, stride)) for length in canvas]
    scale = [
        length / (stride * cells)
        for length, cells in zip(canvas, maps.shape[1:], strict=True)
    ]
    # Pixel i of the result lies at i * stride + stride // 2 + 1 / 2 on the canvas.
    shift = 0.5 - (stride // 2 + 0.5) / stride
    return jax.image.scale_and_translate(
        maps,
        (len(maps), *counts),
        (1, 2),
        jnp.array(scale, jnp.float32),
        jnp.full(2, shift, jnp.float32),
        method="bilinear",
        antialias=False,
    )


def _frame_loss(
    logits: Float32[Array, "M1 P"],
    objects: Int32[Array, "P"],
    counts: Bool[Array, "P"],
    *,
    slots: Int32[Array, "G"],
) -> Float32[Array, ""]:
    """Returns the loss of one frame; P pixels, M1 slots including the background."""
    tracked = jnp.pad(slots >= 0, (1, 0))
    labels = jnp.where(tracked[objects], objects, 0)
    probs = jnp.exp(jax.nn.log_softmax(logits, axis=0)[jnp.pad(slots + 1, (1, 0))])
    channels = jnp.arange(len(probs), dtype=labels.dtype)

    def of_channel(
        channel: tuple[Int32[Array, ""], Float32[Array, "P"]],
    ) -> tuple[Float32[Array, ""], Bool[Array, ""]]:
        index, probs = channel
        targets = labels == index
        present = (targets & counts).any()
        loss = jax.lax.cond(
            present,
            lambda probs: lovasz_class(probs, targets, counts),
            lambda probs: jnp.zeros_like(probs[0]),
            probs,
        )
        return loss, present

    losses, present = jax.lax.map(of_channel, (channels, probs))
    return losses.sum() / jnp.maximum(present.sum(), 1).astype(losses.dtype)
