"""DeepSORT: Kalman filter and appearance, matched one-to-one with a frame's detections.

Wojke, Bewley and Paulus, "Simple Online and Realtime Tracking with a Deep Association
Metric", ICIP 2017, as used as a baseline by Yang, Fan and Xu, "Video Instance
Segmentation", ICCV 2019, section 6. Letters: S track slots, D detections per frame, B
appearance vectors kept per track.
"""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.settings import Count, Range, Share, Weight, section
from vis_jax.structures import Clip, Detections
from vis_jax.trackers import kalman
from vis_jax.trackers.deep_sort_matching import (
    Limits,
    Pairs,
    Weights,
    match_by_cascade,
    match_by_score,
)
from vis_jax.trackers.tracker import Cues, Tracked, Tracker, scan_frames
from vis_jax.typing import Array, Bool, Float32, Int32

FREE, TENTATIVE, CONFIRMED, DELETED = range(4)


@section
class Settings(Cues):
    """`test.trackers.deep_sort`; the defaults are for videos of a few seconds.

    Yang et al. combine overlap and appearance without further details. Where their text
    is silent, this follows their main method, in which tracks never end.
    """

    # cascade: as published; score: a weighted sum of all cues; see
    # deep_sort_matching.py.
    matching: Literal["cascade", "score"] = "score"
    look: Weight = 2.0  # weight of the cosine of appearances, for matching "score"
    min_score: Share = 0.0  # detections below it are ignored
    # 1 - cosine, above which appearances do not match.
    max_cosine_distance: Annotated[float, Range(least=0, most=2)] = 0.2
    max_iou_distance: Share = 0.7  # 1 - IoU, above which boxes do not match
    max_age: Count = 1_000_000  # frames that a confirmed track may stay unseen
    n_init: Count = 1  # consecutive detections that confirm a track
    # Newest appearance vectors kept per track; memory grows with tracks x budget.
    budget: Count = 100
    show_tentative: bool = True  # unconfirmed tracks have an id, too


# Thresholds of the authors' benchmark script.
PUBLISHED = Settings(
    matching="cascade",
    detection=0.0,
    iou=0.0,
    category=0.0,
    look=0.0,
    min_score=0.3,
    max_age=30,
    n_init=3,
)


class State(NamedTuple):
    """State of the tracks. Slot s holds the track with id s + 1 and is never reused."""

    filters: kalman.Gaussian  # [S]
    status: Int32[Array, "S"]  # FREE, TENTATIVE, CONFIRMED or DELETED
    hits: Int32[Array, "S"]  # detections of the track
    unseen: Int32[Array, "S"]  # frames since its last detection
    labels: Int32[Array, "S"]  # label of the track's first detection
    # Descriptors of its last B detections; detection n is at index n modulo B.
    descriptors: Float32[Array, "S B F"]
    lost: Int32[Array, ""]  # detections without a free slot


def build(settings: Settings, slots: int) -> Tracker:
    """Builds the tracker.

    Args:
      settings: `PUBLISHED` or others.
      slots: most tracks of a video.
    """

    def start(clip: Clip, detections: Detections) -> State:
        del clip
        return empty_state(slots, settings.budget, detections.descriptors.shape[-1])

    def track(
        variables: dict,
        state: State,
        clip: Clip,
        detections: Detections,
        features: Any = None,
    ) -> tuple[State, Tracked]:
        del variables, features

        def step(
            state: State, detections: Detections
        ) -> tuple[State, Int32[Array, "N"]]:
            return _step(state, detections, settings)

        state, ids = scan_frames(step, state, detections, clip.frame_valid)
        return state, Tracked(ids, state.lost)

    return Tracker(start, track)


def empty_state(slots: int, budget: int, features: int) -> State:
    """Returns a state without tracks.

    Args:
      slots: most tracks of a video.
      budget: appearance vectors kept per track.
      features: length of an appearance vector.
    """
    zeros = jnp.zeros((slots,), jnp.int32)
    return State(
        filters=kalman.free_states(slots),
        status=zeros + FREE,
        hits=zeros,
        unseen=zeros,
        labels=zeros,
        descriptors=jnp.zeros((slots, budget, features)),
        lost=jnp.zeros((), jnp.int32),
    )


def _step(
    state: State, detections: Detections, settings: Settings
) -> tuple[State, Int32[Array, "N"]]:
    """Processes one frame; returns the state after it and the ids of its detections."""
    slots = state.status.shape[0]
    detected = detections.valid & (detections.scores >= settings.min_score)
    state = _predict(state)
    matched = _match(state, detections, detected, settings)
    # Unmatched detections start tracks while slots are free. Deviation: in detection
    # order; in the authors' code the order depends on the matching.
    unmatched = detected & (matched == slots)
    rank = jnp.cumsum(unmatched.astype(jnp.int32)) - 1
    free = jnp.sum(state.status != FREE, dtype=jnp.int32) + rank
    new = unmatched & (free < slots)
    written = jnp.where(new, free, matched)
    state = _write(state, detections, written, new)
    lost = jnp.sum(unmatched & ~new, dtype=jnp.int32)
    state = _age(state, written, settings)._replace(lost=state.lost + lost)
    shown = written < slots
    if not settings.show_tentative:
        status = state.status[jnp.minimum(written, slots - 1)]
        shown &= status == CONFIRMED
    return state, jnp.where(shown, written + 1, 0)


def _alive(state: State) -> Bool[Array, "S"]:
    return (state.status == TENTATIVE) | (state.status == CONFIRMED)


def _predict(state: State) -> State:
    alive = _alive(state)
    return state._replace(
        filters=_where(alive, jax.vmap(kalman.predict)(state.filters), state.filters),
        unseen=state.unseen + alive.astype(jnp.int32),
    )


def _match(
    state: State, detections: Detections, detected: Bool[Array, "D"], settings: Settings
) -> Int32[Array, "D"]:
    """Returns the slot of the track that each detection continues, S for none."""
    pairs = compare(state, detections)
    limits = Limits(settings.max_cosine_distance, settings.max_iou_distance)
    if settings.matching == "score":
        return match_by_score(
            pairs,
            detected,
            detections.scores,
            live=_alive(state),
            limits=limits,
            weights=Weights(
                settings.detection, settings.iou, settings.category, settings.look
            ),
        )
    return match_by_cascade(
        pairs,
        detected,
        confirmed=state.status == CONFIRMED,
        tentative=state.status == TENTATIVE,
        unseen=state.unseen,
        limits=limits,
        max_age=settings.max_age,
    )


def compare(state: State, detections: Detections) -> Pairs:
    """Computes the cues for each pair of a slot and a detection of one frame."""
    cosines = jnp.einsum(
        "sbf,df->sbd",
        state.descriptors,
        detections.descriptors,
        precision=jax.lax.Precision.HIGHEST,  # accelerators round by default
    )
    kept = jnp.arange(state.descriptors.shape[1])[None] < state.hits[:, None]
    cosines = jnp.max(jnp.where(kept[..., None], cosines, -jnp.inf), axis=1)
    boxes = kalman.from_uvah(state.filters.mean[:, :4])
    gates = jax.vmap(kalman.gating_distance, (0, None))(
        jax.vmap(kalman.project)(state.filters), kalman.to_uvah(detections.boxes)
    )
    return Pairs(
        descriptor_distances=1 - cosines,
        gate_distances=gates,
        iou_distances=1 - box_iou(boxes, detections.boxes),
        same_label=state.labels[:, None] == detections.labels[None],
    )


def _write(
    state: State,
    detections: Detections,
    written: Int32[Array, "D"],
    new: Bool[Array, "D"],
) -> State:
    """Adds detections to their tracks; writes to slot S are dropped."""
    slots, budget, _ = state.descriptors.shape
    places = jnp.minimum(written, slots - 1)
    boxes = kalman.to_uvah(detections.boxes)
    before = jax.tree.map(lambda x: x[places], state.filters)
    continued = jax.vmap(kalman.update)(before, boxes)
    filters = _where(new, jax.vmap(kalman.initiate)(boxes), continued)
    born = jnp.where(new, written, slots)
    return state._replace(
        filters=jax.tree.map(
            lambda x, y: x.at[written].set(y, mode="drop"), state.filters, filters
        ),
        hits=state.hits.at[written].add(1, mode="drop"),
        unseen=state.unseen.at[written].set(0, mode="drop"),
        labels=state.labels.at[born].set(detections.labels, mode="drop"),
        descriptors=state.descriptors.at[written, state.hits[places] % budget].set(
            detections.descriptors, mode="drop"
        ),
    )


def _age(state: State, written: Int32[Array, "D"], settings: Settings) -> State:
    """Confirms tracks after consecutive detections, and deletes them when unseen.

    Deviation: with n_init 1, the authors' code confirms a track at its second
    detection.
    """
    seen = jnp.zeros(state.status.shape, bool).at[written].set(True, mode="drop")
    expired = state.status == TENTATIVE
    expired |= _alive(state) & (state.unseen > settings.max_age)
    confirmed = jnp.where(state.hits >= settings.n_init, CONFIRMED, TENTATIVE)
    missed = jnp.where(expired, DELETED, state.status)
    return state._replace(status=jnp.where(seen, confirmed, missed))


def _where(
    chosen: Bool[Array, "S"], new: kalman.Gaussian, old: kalman.Gaussian
) -> kalman.Gaussian:
    """Selects `new` where chosen along the first axis, else `old`."""

    def select(
        a: Float32[Array, "S ..."], b: Float32[Array, "S ..."]
    ) -> Float32[Array, "S ..."]:
        return jnp.where(chosen.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(select, new, old)
