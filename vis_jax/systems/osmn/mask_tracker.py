"""Mask propagation by OSMN: the output masks are the network's own.

The row "OSMN (mask propagation)" of the YouTube-VIS benchmark, whose protocol was never
published; this is the library's interpretation. Detections start tracks where there is
none. From then on the network moves each track's mask from frame to frame, and
detections only provide its class and score. Letters: M tracks, N detections, C tracks
at once.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.masks import mask_iou
from vis_jax.settings import Count, Fraction, section
from vis_jax.structures import Clip, Detections
from vis_jax.systems.osmn.guides import place_of
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
from vis_jax.trackers.track_bank import TrackBank, in_use, write_bank
from vis_jax.trackers.tracker import Tracked, Tracker
from vis_jax.typing import Array, Bool, Float32, Int32


@section
class Settings:
    """`test.trackers.osmn_masks`: the network's masks are the output."""

    # A detection with a lower mask overlap with all tracks starts a track.
    min_iou: Fraction = 0.3
    mask_stride: Count = 4  # pixels per cell side of the output masks
    chunk: Count = 4  # tracks and detections processed by the network at once


class PixelTracks(NamedTuple):
    """Track of each pixel: the one with the largest logit above 0."""

    logits: Float32[Array, "H W"]  # the winner's logit; 0 without one
    slots: Int32[Array, "H W"]  # M = background


def build(settings: Settings, slots: int, network: OneShotNetwork) -> Tracker:
    """Builds the tracker, which outputs M masks over the whole canvas.

    Args:
      settings: thresholds and sizes; see `Settings`.
      slots: most tracks of a video, M.
      network: predicts the mask of a track; see `one_shot.OneShotNetwork`.
    """
    step = functools.partial(_step, settings=settings)

    def begin(clip: Clip, detections: Detections) -> State:
        del detections
        _check_canvas(clip, settings.mask_stride)
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
        return scan_images(step, runner, state=state, clip=clip, detections=detections)

    return Tracker(begin, track, draws=True)


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
    detected = detection_masks(found, frame)
    masks = _propagate(runner, state, frame)
    overlaps = jnp.where(found.valid[None], mask_iou(masks, detected), 0.0)
    bank, track_ids = write_bank(
        state.bank,
        found._replace(embeds=found.embeds[:, :0]),
        jnp.zeros(found.labels.shape, jnp.int32),
        kept=jnp.zeros_like(found.valid),
        new=found.valid & ~jnp.any(overlaps >= settings.min_iou, axis=0),
        refresh_labels=False,
    )
    begun = jnp.where(track_ids > 0, track_ids - 1, slots)
    masks = masks.at[begun].set(detected, mode="drop")
    numbers = jnp.arange(begun.shape[0], dtype=jnp.int32)
    overlaps = overlaps.at[begun, numbers].set(1.0, mode="drop")
    memory = remember(
        state.memory,
        detected,
        runner=runner,
        frame=frame,
        slots=begun,
        scores=found.scores,
        wanted=track_ids > 0,
    )
    places = renew(memory.places, jax.vmap(place_of)(masks))
    shown = _shown(settings, masks, overlaps, bank, found)
    ids = jnp.arange(slots, dtype=jnp.int32) + 1
    state = State(bank, memory._replace(places=places))
    return state, jnp.where(shown.valid, ids, 0), shown


def _propagate(
    runner: Runner, state: State, frame: CurrentFrame
) -> Bool[Array, "M H W"]:
    """Returns disjoint masks of all tracks."""
    used = in_use(state.bank)
    slots = used.shape[0]

    def compete(best: PixelTracks, start: Array, logits: Array) -> PixelTracks:
        places = jnp.arange(logits.shape[0], dtype=jnp.int32) + start
        logits = jnp.where(used[places][:, None, None], logits, -jnp.inf)
        top = logits.max(axis=0)
        wins = top > best.logits
        place = places[logits.argmax(axis=0)]
        return PixelTracks(
            jnp.where(wins, top, best.logits), jnp.where(wins, place, best.slots)
        )

    size = frame.inside.shape
    none = PixelTracks(jnp.zeros(size), jnp.full(size, slots, jnp.int32))
    winners = over_tracks(compete, none, runner=runner, state=state, frame=frame)
    numbers = jnp.arange(slots, dtype=jnp.int32)
    return winners.slots[None] == numbers[:, None, None]


def _shown(
    settings: Settings,
    masks: Bool[Array, "M H W"],
    overlaps: Float32[Array, "M N"],
    bank: TrackBank,
    found: Detections,
) -> Detections:
    """Returns a frame's masks, each with class and score of the best detection."""
    slots, height, width = masks.shape
    best = overlaps.argmax(axis=1)
    spoken = overlaps.max(axis=1) >= settings.min_iou
    valid = masks.any(axis=(1, 2))
    canvas = jnp.asarray([0.0, 0.0, width, height])
    step = settings.mask_stride
    cells = (slots, height // step, step, width // step, step)
    share = masks.astype(jnp.float32).reshape(cells).mean(axis=(2, 4))
    return Detections(
        boxes=jnp.where(valid[:, None], canvas[None], 0.0),
        scores=jnp.where(spoken & valid, found.scores[best], 0.0),
        labels=jnp.where(spoken, found.labels[best], bank.labels),
        valid=valid,
        embeds=jnp.zeros((slots, found.embeds.shape[-1])),
        descriptors=jnp.zeros((slots, found.descriptors.shape[-1])),
        mask_logits=share - 0.5,  # linear: boundaries do not move
    )


def _check_canvas(clip: Clip, stride: int) -> None:
    height, width = np.shape(clip.images)[1:3]
    if height % stride or width % stride:
        raise ValueError(
            f"test.trackers.osmn_masks.mask_stride: expected a divisor of the canvas"
            f" of {height} x {width} pixels, got {stride}"
        )
