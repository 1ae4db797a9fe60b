"""SeqTracker: the best tracks of a whole video, one after the other.

Yang, Fan and Xu, "Video Instance Segmentation", ICCV 2019, section 6, after Han et al.,
"Seq-NMS for Video Object Detection", 2016. Offline, and without a look at the image.

A track is a chain of detections i, one in each of some frames one after the other, and
its score is

  sum detection ln(score_i) + sum (iou IoU(i, i + 1) + category [same class])

over its detections, and over its links. The best chain of a video is found by dynamic
programming and becomes a track; so does the best chain of what is left, until the best
is too short. Letters: D detections of one frame.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.settings import Count, Fraction, section
from vis_jax.structures import Clip, Detections
from vis_jax.trackers.track_bank import log_scores
from vis_jax.trackers.tracker import Cues, Tracked, Tracker
from vis_jax.typing import Array, Bool, Float32, Int32


@section
class Settings(Cues):
    """`test.trackers.seq`: SeqTracker."""

    # Least IoU that links detections of two frames; the paper does not say, and has
    # 0.3 with other trackers.
    min_iou: Fraction = 0.3
    # Frames. The search ends at the first chain that is shorter; 8 in the paper.
    min_length: Count = 8


class Chain(NamedTuple):
    """Detections of frames one after the other."""

    score: Float32[Array, ""]
    length: Int32[Array, ""]
    chosen: Bool[Array, "T D"]


def build(settings: Settings, slots: int) -> Tracker:
    """The tracker; it has no state, and reads a whole video at once.

    Tracks come in the order of their score; those beyond the slots are counted as lost.

    Args:
      settings: weights, thresholds and rules; see `Settings`.
      slots: the most tracks of a video.
    """

    def start(clip: Clip, detections: Detections) -> tuple:
        del clip, detections
        return ()

    def track(
        variables: dict,
        state: tuple,
        clip: Clip,
        detections: Detections,
        features: Any = None,
    ) -> tuple[tuple, Tracked]:
        del variables, features
        valid = detections.valid & clip.frame_valid[:, None]
        nodes = settings.detection * jax.vmap(log_scores)(detections.scores)
        nodes = jnp.where(valid, nodes, -jnp.inf)
        ids, tracks = _extract(nodes, _links(detections, settings), settings.min_length)
        lost = jnp.maximum(tracks - slots, 0)
        return state, Tracked(jnp.where(ids <= slots, ids, 0), lost)

    return Tracker(start, track, offline=True)


def best_chain(nodes: Float32[Array, "T D"], links: Float32[Array, "T-1 D D"]) -> Chain:
    """The chain of the largest sum of nodes and links.

    Of chains with the same sum the one that ends first; then, from the end back, the
    detection that comes first. A chain is not made longer by what adds nothing to it.

    Args:
      nodes: score of each detection; -inf = not to be used.
      links: from each detection of a frame (first axis) to each of the next one; -inf =
        not to be linked.

    Returns:
      The chain; empty, of the score -inf, if no node is to be used.
    """
    count = nodes.shape[1]

    def extend(before, inputs):
        score, length = before
        node, link = inputs
        totals = score[:, None] + link
        added = totals.max(axis=0)
        origin = jnp.where(added > 0, totals.argmax(axis=0), count).astype(jnp.int32)
        score = node + jnp.maximum(added, 0.0)
        length = 1 + jnp.where(added > 0, length[jnp.minimum(origin, count - 1)], 0)
        return (score, length), (score, length, origin)

    def trace(at, inputs):
        frame, origin = inputs
        at = jnp.where(frame == last // count, last % count, at)
        before = jnp.where(at < count, origin[jnp.minimum(at, count - 1)], count)
        return before, at == jnp.arange(count, dtype=jnp.int32)

    nothing = (jnp.full((count,), -jnp.inf), jnp.zeros((count,), jnp.int32))
    links = jnp.pad(links, ((1, 0), (0, 0), (0, 0)), constant_values=-jnp.inf)
    _, (scores, lengths, origins) = jax.lax.scan(extend, nothing, (nodes, links))
    last = jnp.argmax(scores).astype(jnp.int32)
    frames = jnp.arange(nodes.shape[0], dtype=jnp.int32)
    nowhere = jnp.asarray(count, jnp.int32)
    _, chosen = jax.lax.scan(trace, nowhere, (frames, origins), reverse=True)
    score, length = scores.ravel()[last], lengths.ravel()[last]
    exists = score > -jnp.inf
    return Chain(score, jnp.where(exists, length, 0), chosen & exists)


def _links(detections: Detections, settings: Settings) -> Float32[Array, "_ D D"]:
    """Scores of links of each frame with the next one, T - 1 of them."""
    boxes, labels = detections.boxes, detections.labels
    overlaps = jax.vmap(box_iou)(boxes[:-1], boxes[1:])
    same = labels[:-1, :, None] == labels[1:, None]
    scores = settings.iou * overlaps + settings.category * same.astype(jnp.float32)
    return jnp.where(overlaps >= settings.min_iou, scores, -jnp.inf)


def _extract(
    nodes: Float32[Array, "T D"], links: Float32[Array, "T-1 D D"], min_length: int
) -> tuple[Int32[Array, "T D"], Int32[Array, ""]]:
    """Number of the track of each detection, 0 for none, and how many there are."""

    def add(state):
        ids, tracks, _ = state
        chain = best_chain(jnp.where(ids > 0, -jnp.inf, nodes), links)
        enough = chain.length >= min_length
        tracks += enough.astype(jnp.int32)
        return jnp.where(chain.chosen & enough, tracks, ids), tracks, enough

    # It ends: every track takes nodes, and without nodes no chain has a length.
    nothing = jnp.zeros(nodes.shape, jnp.int32), jnp.zeros((), jnp.int32)
    ids, tracks, _ = jax.lax.while_loop(
        lambda state: state[2], add, (*nothing, jnp.asarray(True))
    )
    return ids, tracks
