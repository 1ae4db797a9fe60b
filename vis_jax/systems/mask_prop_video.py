"""MaskProp over the frames of a video, whole or clip by clip.

Each frame is the centre of its own clip, with T frames on either side. It can be linked
only once the last of these has arrived, so clip by clip, masks are T frames late: the
delay. A whole video has no delay and uses the same step. Detection with support from
nearby frames adds its own delay; see `mask_prop_frames`. Letters: S frames of a clip of
the video, D frames of delay (0 or T), F = D + S plus the finder's delay: frames that a
step reports, N objects per frame, K classes, h w cells of 'p3'.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.association.clip_tracks import (
    ClipTracks,
    ContinuationRule,
    LinkState,
    class_probs,
    free_ended,
    link,
    no_links,
)
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.mask_prop_carriers import LinkObjects, MaskPropagator
from vis_jax.systems.mask_prop_frames import FrameFinder
from vis_jax.systems.mask_prop_model import STRIDE, mask_cells
from vis_jax.systems.mask_prop_settings import Settings, TestSettings
from vis_jax.typing import Array, Bool, Float32, Int32


class State(NamedTuple):
    """State of a video after some frame."""

    kept: Any  # state of the finder
    views: Any  # `Carrier.views` of the last D + T frames
    real: Bool[Array, "E"]  # whether these D + T frames exist in the video
    waiting: LinkObjects  # objects of the last D frames
    links: LinkState


def start(
    finder: FrameFinder,
    carrier: MaskPropagator,
    settings: Settings,
    delay: int,
    clip: Clip,
) -> State:
    """Returns the state before the first frame of a video.

    Args:
      finder: detects objects.
      carrier: propagates masks.
      settings: settings of the system.
      delay: D.
      clip: the first clip; only its shapes are read.
    """
    test, classes = settings.test, settings.model.num_classes
    cells = (clip.images.shape[1] // STRIDE, clip.images.shape[2] // STRIDE)
    lead = (delay, test.objects)

    def zeros(*shape: int) -> Array:
        return jnp.zeros((*lead, *shape), jnp.float32)

    waiting = LinkObjects(
        masks=zeros(*cells),
        valid=jnp.zeros(lead, bool),
        class_scores=zeros(classes),
        mask_logits=zeros(*mask_cells(settings)),
        mask_boxes=zeros(4),
    )
    return State(
        finder.start(clip),
        carrier.no_views(delay + test.radius, cells),
        jnp.zeros(delay + test.radius, bool),
        waiting,
        no_links(
            test.radius,
            test.objects,
            test.tracks,
            classes=classes,
            size=cells,
            dtype=jnp.dtype(settings.compute_dtype),
        ),
    )


def step(
    finder: FrameFinder,
    carrier: MaskPropagator,
    test: TestSettings,
    variables: dict,
    state: State,
    clip: Clip,
) -> tuple[State, Predictions]:
    """Processes the next frames of a video.

    Args:
      finder: detects objects.
      carrier: propagates masks.
      test: settings of the config.
      variables: variables of the whole system.
      state: before the frames.
      clip: the frames.
    """
    count, delay = clip.frame_valid.shape[0], len(state.waiting.valid)
    radius = test.radius
    kept, arrived = finder.find(variables, state.kept, clip)
    cells = (arrived.objects.masks.shape[2], arrived.objects.masks.shape[3])
    views = _joined(state.views, arrived.views, carrier.no_views(radius, cells))
    real = jnp.concatenate([state.real, arrived.real, jnp.zeros(radius, bool)])
    objects = _joined(state.waiting, arrived.objects)
    rows = jnp.arange(objects.valid.shape[0], dtype=jnp.int32)
    # Clips centred on the other rows are incomplete.
    ready = real[radius : radius + rows.shape[0]] & (
        (rows < count) | jnp.asarray(clip.last)
    )

    frames = _Frames(views, real, objects)
    link_row = functools.partial(_link_row, carrier, test, variables, frames)
    links, slots = jax.lax.scan(link_row, free_ended(state.links), (rows, ready))
    after = State(
        kept,
        jax.tree.map(lambda x: x[count : count + delay + radius], views),
        real[count : count + delay + radius],
        jax.tree.map(lambda x: x[count : count + delay], objects),
        links,
    )
    return after, _report(links, slots, objects, test)


class _Frames(NamedTuple):
    """Frames to link: V = F + 2 T, of which the middle ones are centres."""

    views: Any  # as `Carrier.views` returns, of V frames
    real: Bool[Array, "V"]  # whether these frames exist in the video
    objects: LinkObjects  # objects of F frames


def _link_row(
    carrier: MaskPropagator,
    test: TestSettings,
    variables: dict,
    frames: _Frames,
    links: LinkState,
    now: tuple[Int32[Array, ""], Bool[Array, ""]],
) -> tuple[LinkState, Int32[Array, "N"]]:
    """Links the objects of one frame; `now` is its index, and whether to link it."""
    row, ready = now

    def link_centre(links: LinkState) -> tuple[LinkState, Int32[Array, "N"]]:
        objects = jax.tree.map(lambda x: x[row], frames.objects)
        centre = jax.tree.map(lambda x: x[row + test.radius], frames.views)
        around, real = (
            jax.tree.map(lambda x: _window(x, row, 2 * test.radius + 1), part)
            for part in (frames.views, frames.real)
        )
        tubes = carrier.carry(variables, centre, around, real, objects)
        return _link_objects(links, tubes, real, objects, test)

    def skip(links: LinkState) -> tuple[LinkState, Int32[Array, "N"]]:
        return links, jnp.full((test.objects,), -1, jnp.int32)

    return jax.lax.cond(ready, link_centre, skip, links)


def _link_objects(
    links: LinkState,
    tubes: Float32[Array, "N L h w"],
    frame_valid: Bool[Array, "L"],
    objects: LinkObjects,
    test: TestSettings,
) -> tuple[LinkState, Int32[Array, "N"]]:
    """Returns the track of each of a frame's objects, -1 for none."""
    if test.centre == "frame_mask":
        tubes = tubes.at[:, test.radius].set(objects.masks)
    found = ClipTracks(tubes, objects.valid, frame_valid, objects.class_scores)
    links, named = link(links, found, ContinuationRule(test.threshold, test.unique))
    return links, jnp.where(named.shown, named.slots, -1)


def _report(
    links: LinkState,
    slots: Int32[Array, "F N"],
    objects: LinkObjects,
    test: TestSettings,
) -> Predictions:
    """Returns all tracks that may continue, and the masks of some frames."""
    probs = class_probs(links, test.scoring)
    return Predictions(
        class_probs=jnp.where(probs > test.least, probs, 0.0),
        track_ids=links.track_ids,
        valid=links.track_ids > 0,
        slots=slots,
        mask_logits=objects.mask_logits,
        mask_boxes=objects.mask_boxes,
        lost=links.lost,
    )


def _joined(*parts: Any) -> Any:
    """Concatenates trees of arrays along their first axis."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _window(x: Array, begin: Int32[Array, ""], length: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, begin, length)
