"""Class and score of the tracks of RGNNVIS.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.5, table 3, and the released code. Letters: T frames, M tracks, N
detections of a frame, C classes with the background, which is the first, K = C - 1.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.association.track_decisions import ACTIVE, FREE
from vis_jax.association.track_graph import Frame, Linked
from vis_jax.typing import Array, Float32

# What the class and the score of a track come from: the track itself, the classes of
# its detections (that of most, and their mean score), or their mean logits.
Scoring = Literal["track", "heuristic", "averaged"]


class Tally(NamedTuple):
    """Scores of the tracks, summed over the frames so far."""

    frames: Float32[Array, "M"]  # in which a track was there, in sight or not
    track_votes: Float32[Array, "M K"]  # best class of the track, by frame
    track_scores: Float32[Array, "M"]  # sums of its probability
    seen: Float32[Array, "M"]  # frames in which a track had a detection
    votes: Float32[Array, "M K"]  # best class of the detection, by frame
    scores: Float32[Array, "M"]  # sums of its probability
    logits: Float32[Array, "M C"]  # sums


def empty_tally(tracks: int, classes: int) -> Tally:
    """Before the first frame; `classes` is C."""

    def zeros(*more: int) -> Array:
        return jnp.zeros((tracks, *more), jnp.float32)

    return Tally(
        zeros(), zeros(classes - 1), zeros(), zeros(), zeros(classes - 1), zeros(),
        zeros(classes),
    )  # fmt: skip


def count(tally: Tally, frames: Frame, linked: Linked) -> Tally:
    """Adds T frames.

    Args:
      tally: before.
      frames: what was detected in them.
      linked: what was decided.
    """
    real = frames.real[:, None]
    there = (real & (linked.status != FREE)).astype(jnp.float32)
    probs = jax.nn.softmax(linked.class_logits)[..., 1:]
    active = (real & (linked.status == ACTIVE)).astype(jnp.float32)
    logits = jnp.take_along_axis(frames.logits, linked.chosen[..., None], axis=1)
    scores = jnp.take_along_axis(frames.scores, linked.chosen, axis=1)
    return Tally(
        tally.frames + there.sum(axis=0),
        tally.track_votes + (_one_hot(probs) * there[..., None]).sum(axis=0),
        tally.track_scores + (probs.max(axis=-1) * there).sum(axis=0),
        tally.seen + active.sum(axis=0),
        tally.votes + (_one_hot(logits[..., 1:]) * active[..., None]).sum(axis=0),
        tally.scores + (scores * active).sum(axis=0),
        tally.logits + (logits * active[..., None]).sum(axis=0),
    )


class Rule(NamedTuple):
    """Rule by which a track gets its class and score.

    Attributes:
      scoring: see the type.
      majority: whether the class of a track is that of most frames, as in the paper's
        appendix D; else that of the last one. Read by the scoring `track`, as is:
      mean: whether the score is the mean over the frames; else that of the last one.
    """

    scoring: Scoring
    majority: bool
    mean: bool


def class_probs(
    tally: Tally, class_logits: Float32[Array, "M C"], rule: Rule
) -> Float32[Array, "M K"]:
    """The score of each track at its class; all other classes have 0.

    Args:
      tally: of all frames.
      class_logits: of the tracks after the last frame.
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
