"""MaskProp: links clip tracks of one video into tracks of the whole video.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020, section 3.3. Each frame t is the centre of a
clip of the frames t - T .. t + T, and each object detected in it has a soft mask in all
of them. Clips of nearby frames overlap, and their masks are compared in the shared
frames. Only the clips of the last 2 T frames share a frame with the next one, so only
they are kept. Letters: T frames on either side of the centre, N objects per frame, best
score first, S track slots, R = 2 T previous clips, F = 2 T frames of the present clip
shared with earlier ones, K classes.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.soft_overlap import soft_iou_frames
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

# Aggregation of the scores of a track's objects per class: sums per label, divided by
# all objects of the track or by those with the label; or mean score vectors.
ScoreMode = Literal["label_sum_over_n", "label_mean", "vector_mean"]

_EMPTY = 1.0  # cells: two masks with a smaller union are not compared


class ContinuationRule(NamedTuple):
    """Rule for continuing a track; the paper specifies neither field.

    Attributes:
      threshold: score of Eq. 5 above which an object continues a track.
      unique: the objects of a frame get different tracks, by descending score; the
        others take their next best track, or start one. False, as the paper reads: they
        may share a track, whose mask is the best object's.
    """

    threshold: float
    unique: bool


class ClipTracks(NamedTuple):
    """Objects of a frame, with their masks in the clip around it."""

    masks: Float[Array, "N L h w"]  # probabilities, in the L = 2 T + 1 frames
    valid: Bool[Array, "N"]
    frame_valid: Bool[Array, "L"]  # False: no such frame in the video
    # Class scores: only the label's nonzero; or all, for `vector_mean`.
    class_scores: Float32[Array, "N K"]


class LinkState(NamedTuple):
    """State of a video after some frame, used to link the next one."""

    # Masks of previous clips, newest first; frame 0 is the next clip's first frame.
    masks: Float[Array, "R N F h w"]
    slots: Int32[Array, "R N"]  # tracks of their objects; -1 = none
    track_ids: Int32[Array, "S"]  # 1, 2, ..; 0 = free slot
    next_id: Int32[Array, ""]
    scores: Float32[Array, "S K"]  # sums over a track's objects
    labelled: Float32[Array, "S K"]  # number of objects with a score for the class
    objects: Float32[Array, "S"]  # number of objects
    lost: Int32[Array, ""]  # objects so far that found no free slot


class TrackAssignment(NamedTuple):
    """Track assignment of a frame's objects."""

    slots: Int32[Array, "N"]  # -1 = none
    shown: Bool[Array, "N"]  # this object's mask is its track's mask in this frame


def no_links(
    radius: int,
    objects: int,
    slots: int,
    *,
    classes: int,
    size: tuple[int, int],
    dtype: DTypeLike = jnp.float32,
) -> LinkState:
    """Returns the state before the first frame.

    Args:
      radius: T.
      objects: N.
      slots: S.
      classes: K.
      size: height and width of a mask.
      dtype: storage dtype of masks.
    """
    clips = 2 * radius
    return LinkState(
        masks=jnp.zeros((clips, objects, clips, *size), dtype),
        slots=jnp.full((clips, objects), -1, jnp.int32),
        track_ids=jnp.zeros((slots,), jnp.int32),
        next_id=jnp.ones((), jnp.int32),
        scores=jnp.zeros((slots, classes), jnp.float32),
        labelled=jnp.zeros((slots, classes), jnp.float32),
        objects=jnp.zeros((slots,), jnp.float32),
        lost=jnp.zeros((), jnp.int32),
    )


def free_ended(links: LinkState) -> LinkState:
    """Frees tracks that no later object can continue: unseen for 2 T frames.

    Separate from `link`, so that a slot can keep one track over several frames.
    """
    numbers = jnp.arange(len(links.track_ids), dtype=jnp.int32)
    live = (links.slots.reshape(-1, 1) == numbers[None]).any(axis=0)
    return links._replace(
        track_ids=jnp.where(live, links.track_ids, 0),
        scores=jnp.where(live[:, None], links.scores, 0.0),
        labelled=jnp.where(live[:, None], links.labelled, 0.0),
        objects=jnp.where(live, links.objects, 0.0),
    )


def link(
    links: LinkState, found: ClipTracks, rule: ContinuationRule
) -> tuple[LinkState, TrackAssignment]:
    """Links the objects of the next frame to tracks.

    New tracks get free slots in order of score; objects without a slot are counted as
    lost, and later objects are not compared with them.

    Args:
      links: state before the frame.
      found: the objects of the frame.
      rule: see the type.

    Returns:
      The state after the frame, and the tracks of its objects.
    """
    scores = track_scores(links, found)
    usable = (scores > rule.threshold) & found.valid[:, None]
    scores = jnp.where(usable, scores, -jnp.inf)
    known = _unique(scores) if rule.unique else _best(scores)
    slots, new = _with_new(links, known, found.valid)
    count = len(links.track_ids)
    # Slot S is out of bounds: JAX drops the update.
    place = jnp.where(slots >= 0, slots, count)
    ids = links.next_id + jnp.cumsum(new.astype(jnp.int32)) - 1
    labelled = (found.class_scores > 0).astype(jnp.float32)
    masks = jnp.where(_per_mask(found), found.masks, 0.0).astype(links.masks.dtype)
    after = LinkState(
        masks=_advanced(links.masks, masks),
        slots=jnp.concatenate([slots[None], links.slots])[: len(links.slots)],
        track_ids=links.track_ids.at[jnp.where(new, slots, count)].set(
            ids, mode="drop"
        ),
        next_id=links.next_id + new.sum(dtype=jnp.int32),
        scores=links.scores.at[place].add(found.class_scores, mode="drop"),
        labelled=links.labelled.at[place].add(labelled, mode="drop"),
        objects=links.objects.at[place].add(1.0, mode="drop"),
        lost=links.lost + (found.valid & (slots < 0)).sum(dtype=jnp.int32),
    )
    return after, TrackAssignment(slots, (slots >= 0) & _first_of_each(slots))


def clip_scores(links: LinkState, found: ClipTracks) -> Float32[Array, "N R N"]:
    """Returns Eq. 4: the mean soft IoU over shared frames, of objects n and (r, m).

    Deviation: frames where both masks are empty are skipped, as 0 / 0 is undefined.
    Without any other frame the score is 0.
    """
    clips, objects, frames = links.masks.shape[:3]
    if not clips:  # T = 0
        return jnp.zeros((objects, 0, objects), jnp.float32)
    before = jax.lax.collapse(links.masks.astype(jnp.float32), 0, 2)
    now = jnp.where(_per_mask(found), found.masks, 0.0).astype(jnp.float32)
    overlaps = soft_iou_frames(now[:, :frames], before)
    # The last frame of the clip r before the previous one is r frames earlier.
    age, frame = jnp.arange(clips)[:, None], jnp.arange(frames)[None]
    shared = (frame < frames - age) & found.frame_valid[None, :frames]
    shared = jnp.repeat(shared, objects, axis=0)[None]
    counted = shared & (overlaps.union >= _EMPTY)
    total = jnp.where(counted, overlaps.iou(), 0.0).sum(axis=2)
    mean = total / jnp.maximum(counted.sum(axis=2), 1).astype(jnp.float32)
    return mean.reshape(objects, clips, objects)


def track_scores(links: LinkState, found: ClipTracks) -> Float32[Array, "N S"]:
    """Returns Eq. 5: the mean over a track's objects; -inf for tracks without any."""
    scores = jax.lax.collapse(clip_scores(links, found), 1, 3)
    numbers = jnp.arange(len(links.track_ids), dtype=jnp.int32)
    member = (links.slots.reshape(-1, 1) == numbers[None]).astype(jnp.float32)
    total = jnp.matmul(scores, member, precision=jax.lax.Precision.HIGHEST)
    count = member.sum(axis=0)[None]
    return jnp.where(count > 0, total / jnp.maximum(count, 1.0), -jnp.inf)


def class_probs(links: LinkState, mode: ScoreMode) -> Float32[Array, "S K"]:
    """Returns the class scores of tracks; see `ScoreMode`."""
    number = links.labelled if mode == "label_mean" else links.objects[:, None]
    return links.scores / jnp.maximum(number, 1.0)


def _per_mask(found: ClipTracks) -> Bool[Array, "N L 1 1"]:
    """Returns which masks belong to an object and a frame of the video."""
    return (found.valid[:, None] & found.frame_valid[None])[..., None, None]


def _advanced(
    before: Float[Array, "R N F h w"], masks: Float[Array, "N L h w"]
) -> Float[Array, "R N F h w"]:
    """Shifts the masks of the previous clips to the frames of the next one."""
    clips = len(before)
    moved = jnp.concatenate([before[:, :, 1:], jnp.zeros_like(before[:, :, :1])], 2)
    return jnp.concatenate([masks[None, :, 1:], moved])[:clips]


def _best(scores: Float32[Array, "N S"]) -> Int32[Array, "N"]:
    """Returns the best track of each object, -1 if none is usable."""
    best = scores.argmax(axis=1).astype(jnp.int32)
    return jnp.where(scores.max(axis=1) > -jnp.inf, best, -1)


def _unique(scores: Float32[Array, "N S"]) -> Int32[Array, "N"]:
    """Same as `_best`, but one-to-one: each best pair removes its object and track."""
    objects, slots = scores.shape

    def take(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        scores, chosen = state
        row, column = jnp.divmod(scores.argmax().astype(jnp.int32), slots)
        usable = scores[row, column] > -jnp.inf
        chosen = chosen.at[row].set(jnp.where(usable, column, chosen[row]))
        return scores.at[row].set(-jnp.inf).at[:, column].set(-jnp.inf), chosen

    none = jnp.full((objects,), -1, jnp.int32)
    return jax.lax.fori_loop(0, objects, take, (scores, none))[1]


def _with_new(
    links: LinkState, known: Int32[Array, "N"], valid: Bool[Array, "N"]
) -> tuple[Int32[Array, "N"], Bool[Array, "N"]]:
    """Returns the slot of every object, and which objects start a track."""
    begins = valid & (known < 0)
    free = links.track_ids == 0
    rank = jnp.cumsum(begins.astype(jnp.int32)) - 1
    new = begins & (rank < free.sum())
    places = jnp.argsort(~free).astype(jnp.int32)  # free slots first, in order
    return jnp.where(new, places[jnp.clip(rank, 0, len(free) - 1)], known), new


def _first_of_each(slots: Int32[Array, "N"]) -> Bool[Array, "N"]:
    """Returns whether no earlier object has the same track."""
    same = slots[:, None] == slots[None]
    return ~jnp.tril(same, -1).any(axis=1)
