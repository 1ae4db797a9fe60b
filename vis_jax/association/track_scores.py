"""Class and score of RGNNVIS tracks.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.5, table 3, and the released code. Letters: T frames, M tracks, N
detections per frame, C classes including the background, which comes first, K = C - 1.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.association.track_decisions import ACTIVE, FREE
from vis_jax.association.track_graph import FrameDecisions, GraphFrame
from vis_jax.typing import Array, Float32

# Source of a track's class and score: the track itself, its detections' classes
# (majority vote and mean score), or their mean logits.
Scoring = Literal["track", "heuristic", "averaged"]


class TrackScoreSums(NamedTuple):
    """Scores of tracks, summed over the frames so far."""

    frames: Float32[Array, "M"]  # in which a track existed, visible or not
    track_votes: Float32[Array, "M K"]  # votes of the track's best class, by frame
    track_scores: Float32[Array, "M"]  # sums of its probability
    seen: Float32[Array, "M"]  # frames with a detection of the track
    votes: Float32[Array, "M K"]  # votes of the detection's best class, by frame
    scores: Float32[Array, "M"]  # sums of its probability
    logits: Float32[Array, "M C"]  # sums


def empty_tally(tracks: int, classes: int) -> TrackScoreSums:
    """Returns the state before the first frame; `classes` is C."""

    def zeros(*more: int) -> Array:
        return jnp.zeros((tracks, *more), jnp.float32)

    return TrackScoreSums(
        zeros(), zeros(classes - 1), zeros(), zeros(), zeros(classes - 1), zeros(),
        zeros(classes),
    )  # fmt: skip


def count(
    tally: TrackScoreSums, frames: GraphFrame, linked: FrameDecisions
) -> TrackScoreSums:
    """Adds T frames.

    Args:
      tally: before the frames.
      frames: their detections.
      linked: the decisions on them.
    """
    real = frames.real[:, None]
    exists = (real & (linked.status != FREE)).astype(jnp.float32)
    probs = jax.nn.softmax(linked.class_logits)[..., 1:]
    active = (real & (linked.status == ACTIVE)).astype(jnp.float32)
    logits = jnp.take_along_axis(frames.logits, linked.chosen[..., None], axis=1)
    scores = jnp.take_along_axis(frames.scores, linked.chosen, axis=1)
    return TrackScoreSums(
        tally.frames + exists.sum(axis=0),
        tally.track_votes + (_one_hot(probs) * exists[..., None]).sum(axis=0),
        tally.track_scores + (probs.max(axis=-1) * exists).sum(axis=0),
        tally.seen + active.sum(axis=0),
        tally.votes + (_one_hot(logits[..., 1:]) * active[..., None]).sum(axis=0),
        tally.scores + (scores * active).sum(axis=0),
        tally.logits + (logits * active[..., None]).sum(axis=0),
    )


class TrackScoreRule(NamedTuple):
    """Rule for the class and score of a track.

    Attributes:
      scoring: see the type.
      majority: take the class of most frames, as in the paper's appendix D; otherwise
        the last frame's. Only for the scoring `track`, like:
      mean: take the mean score over the frames; otherwise the last frame's.
    """

    scoring: Scoring
    majority: bool
    mean: bool


def class_probs(
    tally: TrackScoreSums, class_logits: Float32[Array, "M C"], rule: TrackScoreRule
) -> Float32[Array, "M K"]:
    """Returns the score of each track at its class; all other classes get 0.

    Args:
      tally: tally of all frames.
      class_logits: class logits of the tracks after the last frame.
      rule: see the type.
    """
    probs = jax.nn.softmax(class_logits)[:, 1:]
    if rule.scoring == "track":
        label = (tally.track_votes if rule.majority else probs).argmax(axis=1)
        mean = tally.track_scores / jnp.maximum(tally.frames, 1.0)
        score = mean if rule.mean else probs.max(axis=1)
    elif rule.scoring == "heuristic":
        label = tally.votes.argmax(axis=1)
        score = tally.scores / jnp.maximum(tally.seen, 1.0)
    else:
        mean_logits = tally.logits / jnp.maximum(tally.seen, 1.0)[:, None]
        averaged = jax.nn.softmax(mean_logits)[:, 1:]
        label, score = averaged.argmax(axis=1), averaged.max(axis=1)
    return score[:, None] * jax.nn.one_hot(label, probs.shape[1])


def _one_hot(scores: Float32[Array, "T M K"]) -> Float32[Array, "T M K"]:
    return jax.nn.one_hot(scores.argmax(axis=-1), scores.shape[-1])
