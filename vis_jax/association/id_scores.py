"""Class and score of a video's identities.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022; the rules follow the released code and its first version.
Letters: S identities, D detections per frame, K classes.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32, Int32

# Frames over which an identity's score is averaged: all so far, or those in which it
# was detected, keeping only its best classes.
Over = Literal["all_frames", "detected"]
_BEST_CLASSES = 5


class IdentityScoreSums(NamedTuple):
    """Scores of identities, summed over the frames so far."""

    frames: Float32[Array, ""]
    detected: Float32[Array, "S"]  # frames in which an identity was detected
    scores: Float32[Array, "S K"]  # sums


def empty_tally(slots: int, classes: int) -> IdentityScoreSums:
    """Returns the state before the first frame."""
    return IdentityScoreSums(
        jnp.float32(0.0),
        jnp.zeros((slots,), jnp.float32),
        jnp.zeros((slots, classes), jnp.float32),
    )


def count(
    tally: IdentityScoreSums,
    ids: Int32[Array, "D"],
    shown: Bool[Array, "D"],
    class_scores: Float32[Array, "D K"],
    *,
    real: Bool[Array, ""],
) -> IdentityScoreSums:
    """Adds a frame.

    Args:
      tally: before the frame.
      ids: 0 .. S - 1, at most one detection each.
      shown: detections with an identity.
      class_scores: class scores of the detections.
      real: False for padding.
    """
    slot = jnp.where(shown & real, ids, len(tally.detected))
    return IdentityScoreSums(
        tally.frames + real.astype(jnp.float32),
        tally.detected.at[slot].add(1.0, mode="drop"),
        tally.scores.at[slot].add(class_scores, mode="drop"),
    )


def class_probs(
    tally: IdentityScoreSums, *, over: Over, least: float
) -> Float32[Array, "S K"]:
    """Returns mean scores above `least`; all others are 0."""
    if over == "all_frames":
        mean = tally.scores / jnp.maximum(tally.frames, 1.0)
    else:
        mean = tally.scores / jnp.maximum(tally.detected, 1.0)[:, None]
        best = jax.lax.top_k(mean, min(_BEST_CLASSES, mean.shape[1]))[0]
        mean = jnp.where(mean >= best[:, -1:], mean, 0.0)
    return jnp.where(mean > least, mean, 0.0)
