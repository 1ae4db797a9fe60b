"""Association by propagated masks: OSMN in place of box IoU.

Yang et al., "Video Instance Segmentation", ICCV 2019, section 6: a one-shot network
(see `guides` for its source) predicts each track's mask in a new frame, and the
overlap of that mask with a detection replaces the IoU in IoUTracker+. A track without a
detection continues from the propagated mask or, where that is empty, from its last
non-empty one. Letters: M tracks, N detections, C tracks at once.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.ops.masks import mask_iou
from vis_jax.settings import Count, section
from vis_jax.structures import Clip, Detections
from vis_jax.systems.osmn.guides import ObjectExtent, mask_box, place_of
from vis_jax.systems.osmn.one_shot import (
    CurrentFrame,
    OneShotNetwork,
    Runner,
    State,
    detection_masks,
    over_tracks,
    remember,
    renew,
    scan_images,
    start,
)
from vis_jax.trackers import iou
from vis_jax.trackers.tracker import Tracked, Tracker
from vis_jax.typing import Array, Bool, Float32


@section
class Settings(iou.Settings):
    """`test.trackers.osmn`: links detections by masks that the network predicts.

    `min_iou` is the least overlap of a detection and the mask of its track.
    """

    # IoU of the detection's box with the box around the mask, or of the two masks.
    overlap: Literal["box", "mask"] = "box"
    # Detection of a track used as the visual guide: the first, or the one with the best
    # score so far.
    guide: Literal["first", "best"] = "first"
    chunk: Count = 4  # tracks and detections processed by the network at once


class Propagated(NamedTuple):
    """Predicted position of each track in a frame, and overlap with detections."""

    places: ObjectExtent  # [M]; zero sigma if the mask is empty or there is no track
    overlaps: Float32[Array, "M N"]  # with the detections


def build(settings: Settings, slots: int, network: OneShotNetwork) -> Tracker:
    """Builds the tracker.

    Args:
      settings: weights, thresholds and rules; see `Settings`.
      slots: most tracks of a video.
      network: predicts the mask of a track; see `one_shot.OneShotNetwork`.
    """
    step = functools.partial(_step, settings=settings)

    def begin(clip: Clip, detections: Detections) -> State:
        del clip, detections
        return start(network, slots)

    def track(
        variables: dict,
        state: State,
        clip: Clip,
        detections: Detections,
        features: Any = None,
    ) -> tuple[State, Tracked]:
        del features
        runner = Runner(network, variables, settings.chunk)
        state, tracked = scan_images(
            step, runner, state=state, clip=clip, detections=detections
        )
        return state, tracked._replace(shown=None)

    return Tracker(begin, track)


def _step(
    runner: Runner,
    state: State,
    frame: CurrentFrame,
    found: Detections,
    *,
    settings: Settings,
) -> tuple[State, Array, Any]:
    """Processes one frame: returns state, identities and output detections."""
    slots = state.memory.gamma.shape[0]
    masks = detection_masks(found, frame)
    seen = _propagate(
        runner,
        state,
        frame,
        boxes=found.boxes,
        masks=masks,
        overlap=settings.overlap,
    )
    bank, track_ids = iou.link(state.bank, found, seen.overlaps.T, settings)
    slot = jnp.where(track_ids > 0, track_ids - 1, slots)
    best = state.memory.guide_scores.at[slot].get(mode="fill", fill_value=0.0)
    better = found.scores > best
    first = track_ids > state.bank.tracks
    memory = remember(
        state.memory,
        masks,
        runner=runner,
        frame=frame,
        slots=slot,
        scores=found.scores,
        wanted=(track_ids > 0) & (first | (better & (settings.guide == "best"))),
    )
    # A detection's mask overrides the propagated one, unless it is empty.
    own = jax.vmap(place_of)(masks)
    places = renew(memory.places, seen.places)
    detected = jnp.where(own.sigma[:, 0] > 0, slot, slots)
    places = jax.tree.map(lambda x, y: x.at[detected].set(y, mode="drop"), places, own)
    return State(bank, memory._replace(places=places)), track_ids, found


def _propagate(
    runner: Runner,
    state: State,
    frame: CurrentFrame,
    *,
    boxes: Float32[Array, "N 4"],
    masks: Bool[Array, "N H W"],
    overlap: str,
) -> Propagated:
    """Returns the position of all tracks, and their overlaps with the detections."""

    def measure(out: Propagated, start: Array, logits: Array) -> Propagated:
        propagated = logits > 0
        if overlap == "mask":
            overlaps = mask_iou(propagated, masks)
        else:
            overlaps = box_iou(jax.vmap(mask_box)(propagated), boxes)
        places = jax.vmap(place_of)(propagated)
        slots = start + jnp.arange(logits.shape[0], dtype=jnp.int32)
        sigma = jnp.where((slots < state.bank.tracks)[:, None], places.sigma, 0.0)
        seen = Propagated(places._replace(sigma=sigma), overlaps)
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, 0), out, seen
        )

    slots = state.memory.gamma.shape[0]
    nowhere = ObjectExtent(jnp.zeros((slots, 2)), jnp.zeros((slots, 2)))
    out = Propagated(nowhere, jnp.zeros((slots, boxes.shape[0])))
    return over_tracks(measure, out, runner=runner, state=state, frame=frame)
