"""Track memory for a one-shot segmentation network: appearance and position.

Only the `ObjectExtent` of a mask enters the network, so only that is stored. Tracks are
processed in chunks; empty slots are skipped. Letters: M slots, C of them at once, N
detections, G modulated channels, S side of a visual guide.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.masks import stretch_masks
from vis_jax.structures import Clip, Detections
from vis_jax.systems.osmn.guides import (
    CropView,
    ObjectExtent,
    mask_box,
    pad_box,
    spatial_guide,
    visual_guide,
)
from vis_jax.trackers.track_bank import TrackBank, empty_bank
from vis_jax.trackers.tracker import Tracked
from vis_jax.typing import Array, Bool, Float32, Int32

_PADDING = 0.03  # share of a box added on each side of a visual guide at test time


class OneShotNetwork(NamedTuple):
    """The network as pure functions; `variables` are those of the whole system."""

    # (images uint8 [T, H, W, 3], size int32 [2]) -> float32 [T, H, W, 3], normalised
    prepare: Callable[[Array, Array], Array]
    # (variables, visual guides [C, S, S, 3]) -> gamma [C, G]
    modulate: Callable[[dict, Array], Array]
    # (variables, images [1, H, W, 3]) -> features shared by an image's objects
    features: Callable[[dict, Array], Any]
    # (variables, shared, gamma [C, G], spatial guides [C, H, W]) -> logits [C, H, W]
    segment: Callable[[dict, Any, Array, Array], Array]
    guide_side: int  # S
    channels: int  # G


class TrackMemory(NamedTuple):
    """Memory of every track, in the form the network needs."""

    gamma: Float32[Array, "M G"]
    places: ObjectExtent  # [M], of the last mask that was not empty
    guide_scores: Float32[Array, "M"]  # score of the detection that gamma comes from


class State(NamedTuple):
    """State of a video after some frame."""

    bank: TrackBank
    memory: TrackMemory


class CurrentFrame(NamedTuple):
    """The frame being processed."""

    image: Float32[Array, "H W 3"]  # normalised
    inside: Bool[Array, "H W"]  # the content; the rest is padding
    shared: Any  # from `OneShotNetwork.features`
    valid: Bool[Array, ""]


class Runner(NamedTuple):
    """The network while processing a video."""

    network: OneShotNetwork
    variables: dict
    chunk: int  # C, unless there are fewer slots


def start(network: OneShotNetwork, slots: int) -> State:
    """Returns a state without tracks."""
    places = ObjectExtent(jnp.zeros((slots, 2)), jnp.zeros((slots, 2)))
    gamma = jnp.zeros((slots, network.channels))
    return State(empty_bank(slots, 0), TrackMemory(gamma, places, jnp.zeros((slots,))))


def scan_images(
    step: Callable, runner: Runner, *, state: State, clip: Clip, detections: Detections
) -> tuple[State, Tracked]:
    """Runs `step(runner, state, frame, found) -> state, ids, shown` over frames.

    Nothing is detected in padding frames.
    """
    images, size = jnp.asarray(clip.images), jnp.asarray(clip.size)
    rows = jnp.arange(images.shape[1], dtype=jnp.int32) < size[0]
    columns = jnp.arange(images.shape[2], dtype=jnp.int32) < size[1]
    frame_valid = jnp.asarray(clip.frame_valid)
    found = detections._replace(valid=detections.valid & frame_valid[:, None])

    def once(state: State, x: Any) -> tuple[State, Any]:
        image, valid, found = x
        image = runner.network.prepare(image[None], size)
        shared = runner.network.features(runner.variables, image)
        frame = CurrentFrame(image[0], rows[:, None] & columns[None], shared, valid)
        state, track_ids, shown = step(runner, state, frame, found)
        return state, (track_ids, shown)

    state, (track_ids, shown) = jax.lax.scan(once, state, (images, frame_valid, found))
    return state, Tracked(track_ids, state.bank.lost, shown)


def detection_masks(found: Detections, frame: CurrentFrame) -> Bool[Array, "N H W"]:
    """Returns the masks of a frame's detections as pixels; none in padding."""
    height, width = frame.inside.shape
    logits = stretch_masks(
        found.mask_logits, jnp.asarray(found.covered), size=(height, width)
    )
    return (logits > 0) & frame.inside[None] & found.valid[:, None, None]


def over_tracks(
    function: Callable, out: Any, *, runner: Runner, state: State, frame: CurrentFrame
) -> Any:
    """Folds `function(out, start, logits [C, H, W]) -> out` over the tracks so far.

    In a padding frame nothing is folded.

    Args:
      function: `start` is the slot of the first logits. The last chunk may include
        empty slots and tracks of the previous chunk.
      out: initial value.
    """
    height, width = frame.inside.shape
    memory = state.memory
    guide = functools.partial(spatial_guide, size=(height, width))

    def once(index: Int32[Array, ""], out: Any) -> Any:
        start = _start(index, runner.chunk, memory.gamma.shape[0])
        gamma, places = rows_from(start, (memory.gamma, memory.places), runner.chunk)
        heat = jax.vmap(guide)(places)
        logits = runner.network.segment(runner.variables, frame.shared, gamma, heat)
        return function(out, start, jnp.where(frame.inside[None], logits, -jnp.inf))

    count = jnp.where(frame.valid, state.bank.tracks, 0)
    return jax.lax.fori_loop(0, -(-count // runner.chunk), once, out)


def rows_from(start: Int32[Array, ""], tree: Any, count: int) -> Any:
    """Returns `count` rows of each array of a tree, or all if there are fewer."""
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, start, min(count, x.shape[0])), tree
    )


def remember(
    memory: TrackMemory,
    masks: Bool[Array, "N H W"],
    *,
    runner: Runner,
    frame: CurrentFrame,
    slots: Int32[Array, "N"],
    scores: Float32[Array, "N"],
    wanted: Bool[Array, "N"],
) -> TrackMemory:
    """Updates the appearance of tracks from detections of this frame.

    Args:
      memory: before the update.
      masks: masks of the detections.
      runner: see `Runner`.
      frame: the current frame; see `CurrentFrame`.
      slots: track slots of the detections.
      scores: scores of the detections.
      wanted: detections to store; their slots differ.
    """
    count, size = wanted.shape[0], memory.gamma.shape[0]
    order = jnp.argsort(~wanted, stable=True).astype(jnp.int32)
    side = runner.network.guide_side

    def picture(mask: Bool[Array, "H W"]) -> Float32[Array, "S S 3"]:
        box = pad_box(mask_box(mask), _PADDING)
        view = CropView(box, jnp.zeros(()), jnp.zeros((), bool))
        return visual_guide(frame.image, mask, view, side=side)

    def once(
        index: Int32[Array, ""], gamma: Float32[Array, "M G"]
    ) -> Float32[Array, "M G"]:
        chosen = rows_from(_start(index, runner.chunk, count), order, runner.chunk)
        guides = jax.vmap(picture)(masks[chosen])
        values = runner.network.modulate(runner.variables, guides)
        # Slot M is out of bounds: JAX drops the update.
        places = jnp.where(wanted[chosen], slots[chosen], size)
        return gamma.at[places].set(values, mode="drop")

    chunks = -(-wanted.sum(dtype=jnp.int32) // runner.chunk)
    gamma = jax.lax.fori_loop(0, chunks, once, memory.gamma)
    places = jnp.where(wanted, slots, size)
    kept = memory.guide_scores.at[places].set(scores, mode="drop")
    return memory._replace(gamma=gamma, guide_scores=kept)


def renew(old: ObjectExtent, new: ObjectExtent) -> ObjectExtent:
    """Returns the new places, or the old ones where a mask was empty."""
    known = new.sigma > 0
    return jax.tree.map(lambda a, b: jnp.where(known, b, a), old, new)


def _start(index: Int32[Array, ""], chunk: int, size: int) -> Int32[Array, ""]:
    """Returns the start of a chunk; the last one is moved back to fit."""
    return jnp.minimum(index * chunk, max(size - chunk, 0)).astype(jnp.int32)
