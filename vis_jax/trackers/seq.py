"""SeqTracker: extracts the best tracks of a whole video one by one.

Yang, Fan and Xu, "Video Instance Segmentation", ICCV 2019, section 6, after Han et al.,
"Seq-NMS for Video Object Detection", 2016. Offline, and without appearance.

A track is a chain of detections i, one in each of several consecutive frames, with the
score

  sum detection ln(score_i) + sum (iou IoU(i, i + 1) + category [same class])

over its detections and links. The best chain of a video is found by dynamic programming
and becomes a track; then the best chain of the rest, until it is too short. Letters: D
detections per frame.
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

    # Least IoU that links detections of two frames; unspecified in the paper, which
    # uses 0.3 for other trackers.
    min_iou: Fraction = 0.3
    # Minimum length in frames. The search ends at the first shorter chain; 8 in the
    # paper.
    min_length: Count = 8


class Chain(NamedTuple):
    """Detections in consecutive frames."""

    score: Float32[Array, ""]
    length: Int32[Array, ""]
    chosen: Bool[Array, "T D"]


def build(settings: Settings, slots: int) -> Tracker:
    """Builds the tracker; it is stateless and processes a whole video at once.

    Tracks are ordered by score; those beyond the slots are counted as lost.

    Args:
      settings: weights, thresholds and rules; see `Settings`.
      slots: most tracks of a video.
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
    """Returns the chain with the largest sum of nodes and links.

    Of chains with the same sum the one that ends first wins; then, from the end back,
    the first detection. Ties go to the shorter chain.

    Args:
      nodes: score of each detection; -inf for unusable ones.
      links: from each detection of a frame (first axis) to each of the next one; -inf
        for forbidden links.

    Returns:
      The chain; empty, with score -inf, if no node is usable.
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
    """Returns link scores of each frame with the next one, T - 1 of them."""
    boxes, labels = detections.boxes, detections.labels
    overlaps = jax.vmap(box_iou)(boxes[:-1], boxes[1:])
    same = labels[:-1, :, None] == labels[1:, None]
    scores = settings.iou * overlaps + settings.category * same.astype(jnp.float32)
    return jnp.where(overlaps >= settings.min_iou, scores, -jnp.inf)


def _extract(
    nodes: Float32[Array, "T D"], links: Float32[Array, "T-1 D D"], min_length: int
) -> tuple[Int32[Array, "T D"], Int32[Array, ""]]:
    """Returns the track number of each detection, 0 for none, and their count."""

    def add(state):
        ids, tracks, _ = state
        chain = best_chain(jnp.where(ids > 0, -jnp.inf, nodes), links)
        enough = chain.length >= min_length
        tracks += enough.astype(jnp.int32)
        return jnp.where(chain.chosen & enough, tracks, ids), tracks, enough

    # Terminates: every track removes nodes, and without nodes chains have no length.
    nothing = jnp.zeros(nodes.shape, jnp.int32), jnp.zeros((), jnp.int32)
    ids, tracks, _ = jax.lax.while_loop(
        lambda state: state[2], add, (*nothing, jnp.asarray(True))
    )
    return ids, tracks
