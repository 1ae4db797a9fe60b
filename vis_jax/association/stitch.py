"""Clips to one video: instances of overlapping clips linked by their masks.

Hwang et al., "Video Instance Segmentation using Inter-Frame Communication
Transformers" (IFC), NeurIPS 2021, section 3.3. All that is kept has the length of one
clip, so the memory does not depend on the length of the video. Letters: A slots for
tracks, I instances of one clip, R clips before the present one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import hungarian
from vis_jax.ops.soft_overlap import soft_iou, soft_match_cost
from vis_jax.structures import Predictions
from vis_jax.typing import Array, Bool, Float32, Int32

_MATCH_FROM = 0.05  # soft IoU, as in IFC
_FORBIDDEN = 1e3  # above every cost of a pair that may be matched


class Instances(NamedTuple):
    """Instances that a system found in one clip, best score first."""

    class_probs: Float32[Array, "I K"]
    mask_logits: Float32[Array, "T I h w"]
    valid: Bool[Array, "I"]


class TrackBank(NamedTuple):
    """Tracks with a mask in the frames of the present clip."""

    track_ids: Int32[Array, "A"]  # 0 = free slot
    next_id: Int32[Array, ""]
    class_sum: Float32[Array, "A K"]  # over the clips with the track ..
    clips: Float32[Array, "A"]  # .. which are so many
    logit_sum: Float32[Array, "A T h w"]  # over the clips with frame and track ..
    covered: Float32[Array, "A T"]  # .. which are so many
    # The clips before, newest first, at their place in the present frames.
    recent_probs: Float32[Array, "R A T h w"]
    recent_seen: Bool[Array, "R A T"]
    lost: Int32[Array, ""]  # instances up to now that found no free slot


def empty_bank(
    tracks: int, clips: int, classes: int, frames: int, size: tuple[int, int]
) -> TrackBank:
    """No tracks.

    Args:
      tracks: slots.
      clips: the most clips that share a frame with the next one.
      classes: of an instance.
      frames: of a clip.
      size: height and width of a mask.
    """
    return TrackBank(
        track_ids=jnp.zeros((tracks,), jnp.int32),
        next_id=jnp.ones((), jnp.int32),
        class_sum=jnp.zeros((tracks, classes)),
        clips=jnp.zeros((tracks,)),
        logit_sum=jnp.zeros((tracks, frames, *size)),
        covered=jnp.zeros((tracks, frames)),
        recent_probs=jnp.zeros((clips, tracks, frames, *size)),
        recent_seen=jnp.zeros((clips, tracks, frames), bool),
        lost=jnp.zeros((), jnp.int32),
    )


def overlapping_clips(length: int, stride: int) -> int:
    """The most clips that share a frame with the next one, at least 1.

    Its start may lie less than a stride behind the last one, at the end of a video.
    """
    return max(1, -(-(length - 1) // stride))


def stitch(
    bank: TrackBank,
    found: Instances,
    frame_valid: Bool[Array, "T"],
    *,
    shift: Int32[Array, ""],
    link: str,
) -> TrackBank:
    """Adds the instances of a clip to the tracks they continue; the rest are new.

    If there are more new ones than free slots, those with the best score get them; the
    others are counted as lost.

    Args:
      bank: as it was after the clip before.
      found: instances of the clip.
      frame_valid: False marks padding at its end.
      shift: frames from the start of the clip before to the start of this one.
      link: "siou" (soft IoU) or "eq4" (the matching cost of IFR's training).
    """
    bank = _advance(bank, shift)
    slots, new = _slots(bank, found, _match(bank, found, frame_valid, link))
    tracks = bank.track_ids.shape[0]
    # Slot A is outside the arrays: JAX drops what would go there.
    ids = bank.next_id + jnp.cumsum(new.astype(jnp.int32)) - 1
    real = frame_valid[None, :, None, None]
    mask_logits = jnp.moveaxis(found.mask_logits, 1, 0)
    seen = jnp.zeros((tracks, frame_valid.shape[0]), bool)
    seen = seen.at[slots].set(frame_valid[None], mode="drop")
    probs = jnp.zeros_like(bank.logit_sum)
    probs = probs.at[slots].set(jax.nn.sigmoid(mask_logits), mode="drop")
    logits = jnp.where(real, mask_logits, 0.0)
    return bank._replace(
        track_ids=bank.track_ids.at[jnp.where(new, slots, tracks)].set(
            ids, mode="drop"
        ),
        next_id=bank.next_id + new.sum(dtype=jnp.int32),
        class_sum=bank.class_sum.at[slots].add(found.class_probs, mode="drop"),
        clips=bank.clips.at[slots].add(1.0, mode="drop"),
        logit_sum=bank.logit_sum.at[slots].add(logits, mode="drop"),
        covered=bank.covered + seen.astype(jnp.float32),
        recent_probs=jnp.concatenate([probs[None], bank.recent_probs[:-1]]),
        recent_seen=jnp.concatenate([seen[None], bank.recent_seen[:-1]]),
        lost=bank.lost + (found.valid & (slots == tracks)).sum(dtype=jnp.int32),
    )


def read_bank(bank: TrackBank) -> Predictions:
    """All tracks: means over the clips so far; no mask where no clip found one."""
    valid = bank.track_ids > 0
    covered = bank.covered[:, :, None, None]
    numbers = jnp.arange(len(valid), dtype=jnp.int32)
    return Predictions(
        class_probs=bank.class_sum / jnp.maximum(bank.clips, 1.0)[:, None],
        track_ids=bank.track_ids,
        valid=valid,
        slots=jnp.where(bank.covered.T > 0, numbers, -1),
        mask_logits=jnp.moveaxis(bank.logit_sum / jnp.maximum(covered, 1.0), 1, 0),
        lost=bank.lost,
    )


def shift_frames(x: Array, by: Int32[Array, ""], axis: int) -> Array:
    """The frames from `by` on, then zeros: what the next clip shares with this one."""
    longer = jnp.concatenate([x, jnp.zeros_like(x)], axis=axis)
    return jax.lax.dynamic_slice_in_dim(longer, by, x.shape[axis], axis)


def _advance(bank: TrackBank, shift: Int32[Array, ""]) -> TrackBank:
    """The bank in the frames of the next clip; tracks that ended before are free."""
    seen = shift_frames(bank.recent_seen, shift, 2)
    live = seen.any(axis=(0, 2))
    return bank._replace(
        track_ids=jnp.where(live, bank.track_ids, 0),
        class_sum=jnp.where(live[:, None], bank.class_sum, 0.0),
        clips=jnp.where(live, bank.clips, 0.0),
        logit_sum=shift_frames(bank.logit_sum, shift, 1),
        covered=shift_frames(bank.covered, shift, 1),
        recent_probs=shift_frames(bank.recent_probs, shift, 2),
        recent_seen=seen,
    )


def _match(
    bank: TrackBank, found: Instances, frame_valid: Bool[Array, "T"], link: str
) -> Int32[Array, "I"]:
    """Slot of the track that each instance continues, A for none."""
    probs = jax.nn.sigmoid(jnp.moveaxis(found.mask_logits, 1, 0))
    shared = bank.recent_seen & frame_valid[None, None]
    ious = jax.vmap(soft_iou, (0, None, 0))(bank.recent_probs, probs, shared)
    clips = jnp.maximum(shared.any(axis=2).sum(0), 1).astype(jnp.float32)
    ious = ious.sum(0) / clips[:, None]
    ious = jnp.where((ious > _MATCH_FROM) & found.valid[None], ious, 0.0)
    cost = -ious
    if link == "eq4":
        cost = jnp.where(ious > 0, _eq4_cost(bank, found, frame_valid), _FORBIDDEN)
    slots = hungarian(cost, found.valid)
    accepted = ious[slots, jnp.arange(slots.shape[0])] > 0
    return jnp.where(accepted, slots, bank.track_ids.shape[0])


def _eq4_cost(
    bank: TrackBank, found: Instances, frame_valid: Bool[Array, "T"]
) -> Float32[Array, "A I"]:
    """Cost of every track with every instance; the track's means act as truth."""
    covered = jnp.maximum(bank.covered, 1.0)[:, :, None, None]
    truth = jax.nn.sigmoid(bank.logit_sum / covered)
    shared = (bank.covered > 0) & frame_valid[None]
    masks = soft_match_cost(jnp.moveaxis(found.mask_logits, 1, 0), truth, shared).T
    classes = bank.class_sum / jnp.maximum(bank.clips, 1.0)[:, None]
    alike = jnp.matmul(
        classes, found.class_probs.T, precision=jax.lax.Precision.HIGHEST
    )
    return masks - 2 * alike


def _slots(
    bank: TrackBank, found: Instances, matched: Int32[Array, "I"]
) -> tuple[Int32[Array, "I"], Bool[Array, "I"]]:
    """Slot of every instance, A for none, and which of them begin a track."""
    tracks = bank.track_ids.shape[0]
    unmatched = found.valid & (matched == tracks)
    free = bank.track_ids == 0
    rank = jnp.cumsum(unmatched.astype(jnp.int32)) - 1
    new = unmatched & (rank < free.sum())
    places = jnp.argsort(~free)  # free slots first, in order
    slots = jnp.where(new, places[jnp.minimum(rank, tracks - 1)], matched)
    return slots.astype(jnp.int32), new
