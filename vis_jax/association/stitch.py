"""Stitches clips into one video: links instances of overlapping clips by their masks.

Hwang et al., "Video Instance Segmentation using Inter-Frame Communication Transformers"
(IFC), NeurIPS 2021, section 3.3. All state has the length of one clip, so memory does
not depend on video length. Letters: A track slots, I instances per clip, R previous
clips.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.assignment import hungarian
from vis_jax.ops.soft_overlap import soft_iou, soft_match_cost
from vis_jax.structures import Predictions
from vis_jax.typing import Array, Bool, Float32, Int32

_MATCH_FROM = 0.05  # minimum soft IoU of a match, as in IFC
_FORBIDDEN = 1e3  # above the cost of every allowed pair


class Instances(NamedTuple):
    """Instances that a system detected in one clip, best score first."""

    class_probs: Float32[Array, "I K"]
    mask_logits: Float32[Array, "T I h w"]
    valid: Bool[Array, "I"]


class ClipTrackBank(NamedTuple):
    """Tracks with a mask in the frames of the current clip."""

    track_ids: Int32[Array, "A"]  # 0 = free slot
    next_id: Int32[Array, ""]
    class_sum: Float32[Array, "A K"]  # over the clips with the track ..
    clips: Float32[Array, "A"]  # .. and their number
    logit_sum: Float32[Array, "A T h w"]  # over the clips with frame and track ..
    covered: Float32[Array, "A T"]  # .. and their number
    # Previous clips, newest first, aligned to the current frames.
    recent_probs: Float32[Array, "R A T h w"]
    recent_seen: Bool[Array, "R A T"]
    lost: Int32[Array, ""]  # instances so far that found no free slot


def empty_bank(
    tracks: int, clips: int, classes: int, frames: int, size: tuple[int, int]
) -> ClipTrackBank:
    """Returns a bank without tracks.

    Args:
      tracks: number of slots.
      clips: most previous clips that share a frame with the next one.
      classes: number of classes.
      frames: clip length.
      size: height and width of masks.
    """
    return ClipTrackBank(
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
    """Returns the most clips that share a frame with the next one, at least 1.

    At the end of a video, the last stride may be shorter.
    """
    return max(1, -(-(length - 1) // stride))


def stitch(
    bank: ClipTrackBank,
    found: Instances,
    frame_valid: Bool[Array, "T"],
    *,
    shift: Int32[Array, ""],
    link: str,
) -> ClipTrackBank:
    """Adds a clip's instances to the tracks they continue; the others start new tracks.

    If there are more new instances than free slots, those with the best scores get
    them; the others are counted as lost.

    Args:
      bank: after the previous clip.
      found: instances of the clip.
      frame_valid: False marks padding at the clip's end.
      shift: frames from the start of the previous clip to the start of this one.
      link: "siou" (soft IoU) or "eq4" (the matching cost of IFR's training).
    """
    bank = _advance(bank, shift)
    slots, new = _slots(bank, found, _match(bank, found, frame_valid, link))
    tracks = bank.track_ids.shape[0]
    # Slot A is out of bounds: JAX drops the update.
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


def read_bank(bank: ClipTrackBank) -> Predictions:
    """Returns all tracks, averaged over clips; no mask where no clip has one."""
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
    """Shifts frames left by `by`, filling with zeros, to align with the next clip."""
    longer = jnp.concatenate([x, jnp.zeros_like(x)], axis=axis)
    return jax.lax.dynamic_slice_in_dim(longer, by, x.shape[axis], axis)


def _advance(bank: ClipTrackBank, shift: Int32[Array, ""]) -> ClipTrackBank:
    """Aligns the bank with the next clip's frames; frees tracks that ended before."""
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
    bank: ClipTrackBank, found: Instances, frame_valid: Bool[Array, "T"], link: str
) -> Int32[Array, "I"]:
    """Returns the slot of the track that each instance continues, A for none."""
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
    bank: ClipTrackBank, found: Instances, frame_valid: Bool[Array, "T"]
) -> Float32[Array, "A I"]:
    """Returns the cost of every (track, instance) pair; track means are the targets."""
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
    bank: ClipTrackBank, found: Instances, matched: Int32[Array, "I"]
) -> tuple[Int32[Array, "I"], Bool[Array, "I"]]:
    """Returns the slot of every instance, A for none, and which start a track."""
    tracks = bank.track_ids.shape[0]
    unmatched = found.valid & (matched == tracks)
    free = bank.track_ids == 0
    rank = jnp.cumsum(unmatched.astype(jnp.int32)) - 1
    new = unmatched & (rank < free.sum())
    places = jnp.argsort(~free)  # free slots first, in order
    slots = jnp.where(new, places[jnp.minimum(rank, tracks - 1)], matched)
    return slots.astype(jnp.int32), new
