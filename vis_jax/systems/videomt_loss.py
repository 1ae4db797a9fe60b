"""Training of VidEoMT, EoMT and their successors.

Letters: B clips, T frames, Q queries, L query blocks, A predictions, the final one
first.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.eomt import QueryPredictions
from vis_jax.losses.clip_queries import (
    ClipTruth,
    Draws,
    clip_terms,
    draw_points,
    frames_apart,
    match_clips,
    truth_of,
)
from vis_jax.structures import Batch
from vis_jax.systems.videomt_model import (
    Content,
    Grid,
    Looked,
    Model,
    Scale,
    alignment,
    call,
    content_of,
)
from vis_jax.systems.videomt_settings import LossSettings, MaskedAttention, Settings
from vis_jax.typing import Array, Bool, Float16, Float32, Int32, PRNGKeyArray, UInt8

_POWER = 0.9  # exponent of the decay of masked attention
_SCALE = 2  # `fold_in` data for the draw of the rotary scale


class FrameSpan(NamedTuple):
    """A span of frames of a batch's clips."""

    images: UInt8[Array, "B T H W 3"]
    sizes: Int32[Array, "B 2"]
    truth: ClipTruth
    limited: Bool[Array, "T B L Q"] | None  # queries with masked attention; None = none
    scale: Scale = None  # scale of rotary positions
    features: Float16[Array, "B T L S C"] | None = None  # see `Batch`


class Carried(NamedTuple):
    """State passed from one chunk of frames to the next, without gradient."""

    entered: Float32[Array, "B Q C"]
    matched: Int32[Array, "A B M"]  # query of each object, -1 = none yet
    batch_stats: dict


def clip_loss(
    model: Model, settings: Settings, variables: dict, batch: Batch, rng: PRNGKeyArray
) -> tuple[dict[str, Float32[Array, ""]], dict]:
    """Returns the weighted terms of a batch, and updated batch norm statistics.

    Clips are cut into chunks of `loss.chunk` frames, a divisor of theirs, each with its
    own loss. The terms are means over the chunks that any clip reaches; the others are
    all padding. The backward pass processes one chunk at a time, so memory holds only
    one chunk.

    Raises:
      ValueError: patches do not fill the canvas.
    """
    _check_canvas(settings, batch.images.shape[2:4])
    frames, weights = batch.images.shape[1], settings.loss
    length = weights.chunk or frames
    points, limits = jax.random.split(rng)
    whole = FrameSpan(
        batch.images,
        batch.sizes,
        truth_of(batch),
        _draw_limits(settings, variables, batch, limits),
        draw_scale(jax.random.fold_in(rng, _SCALE), settings.model.backbone.rescale),
        batch.features,
    )
    begin = _begin(model, settings, variables, batch)

    def chunk(carried: Carried, number: Array):
        part = _cut(whole, number * length, length)
        known = {**variables, "batch_stats": carried.batch_stats}
        found, entered, stats = chunk_predictions(
            model, known, part, carried.entered, settings
        )
        matched = carried.matched
        if not weights.carry_matching:
            matched = jnp.full_like(matched, -1)
        key = jax.random.fold_in(points, number)
        area = _seen_share(settings, part)
        terms, matched = loss_terms(found, part.truth, key, weights, matched, area)
        return jax.lax.stop_gradient(Carried(entered, matched, stats)), terms

    if length == frames:
        left, terms = chunk(begin, jnp.int32(0))
        return terms, left.batch_stats
    numbers = jnp.arange(frames // length)
    left, terms = jax.lax.scan(jax.checkpoint(chunk), begin, numbers)
    share = chunk_shares(jnp.asarray(batch.frame_valid), length)
    return {name: (x * share).sum() for name, x in terms.items()}, left.batch_stats


def chunk_shares(frame_valid: Bool[Array, "B T"], length: int) -> Float32[Array, "N"]:
    """Returns the weight of each of N chunks, equal where any clip has frames.

    Args:
      frame_valid: False marks padding at the end of clips.
      length: frames of a chunk.
    """
    real = frame_valid.any(axis=0).reshape(-1, length).any(axis=1)
    return real.astype(jnp.float32) / jnp.maximum(real.sum(), 1).astype(jnp.float32)


def _check_canvas(settings: Settings, canvas: tuple[int, ...]) -> None:
    """Raises ValueError unless the canvas has the sides of a padded frame."""
    patch = settings.model.backbone.patch
    multiple = alignment(patch)
    if any(side % multiple for side in canvas):
        raise ValueError(
            f"data.canvas: expected multiples of {multiple} pixels, with"
            f" model.backbone.patch {patch}, got {tuple(canvas)}"
        )


def _begin(model: Model, settings: Settings, variables: dict, batch: Batch) -> Carried:
    """Makes the state before the first chunk: learned queries, no object matched."""
    return Carried(
        call(model, variables, Model.first, len(batch.images)),
        jnp.full((_predictions(settings), *batch.labels.shape), -1, jnp.int32),
        dict(variables.get("batch_stats", {})),
    )


def _cut(part: FrameSpan, start: Array, length: int) -> FrameSpan:
    """Cuts out `length` frames of a part from `start` on."""

    def cut(x: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, start, length, axis)

    truth = part.truth
    return FrameSpan(
        cut(part.images, 1),
        part.sizes,
        truth._replace(
            masks=cut(truth.masks, 2),
            present=cut(truth.present, 2),
            frame_valid=cut(truth.frame_valid, 1),
        ),
        None if part.limited is None else cut(part.limited, 0),
        part.scale,
        None if part.features is None else cut(part.features, 1),
    )


def chunk_predictions(
    model: Model,
    variables: dict,
    part: FrameSpan,
    entered: Float32[Array, "B Q C"],
    settings: Settings,
) -> tuple[QueryPredictions, Float32[Array, "B Q C"], dict]:
    """Returns all predictions of frames in order, [A T B Q ..].

    Args:
      model, variables: the network.
      part: the frames; padding leaves the queries unchanged.
      entered: queries that enter the first of these frames.
      settings: settings of the system.

    Returns:
      The predictions, the queries that enter the frame after, and the statistics of
      batch norm.
    """
    grid = model.backbone.grid(*part.images.shape[2:4])
    content = content_of(settings, part.sizes, grid)
    seen = _encode if part.features is None else _fuse_stored
    tokens, stats = seen(model, variables, part, content)
    early = range(model.query_blocks - (not settings.loss.aux_last))

    def frame(entered, inputs):
        tokens, valid, limited = inputs
        looked, found, after = look_and_carry(
            model, variables, entered, tokens, grid,
            early=early, limited=limited, content=content, scale=part.scale,
        )  # fmt: skip
        after = jnp.where(valid[:, None, None], after, entered)
        sets = (found, *looked.early)
        return after, jax.tree.map(lambda *x: jnp.stack(x), *sets)

    body = jax.checkpoint(frame) if settings.model.remat else frame
    inputs = (tokens, part.truth.frame_valid.T, part.limited)
    entered, found = jax.lax.scan(body, entered, inputs)
    return QueryPredictions(*(x.swapaxes(0, 1) for x in found)), entered, stats


def look_and_carry(
    model: Model,
    variables: dict,
    entered: Float32[Array, "N Q C"],
    tokens: Float32[Array, "N S C"],
    grid: Grid,
    *,
    early: range = range(0),
    limited: Bool[Array, "N L Q"] | None = None,
    content: Content = None,
    scale: Scale = None,
) -> tuple[Looked, QueryPredictions, Float32[Array, "N Q C"]]:
    """Runs one frame of N videos: features, final prediction and next queries."""
    looked = call(
        model, variables, Model.look,
        entered, tokens, grid, early, limited, content, scale,
    )  # fmt: skip
    logits = call(model, variables, Model.classify, looked)
    masks = call(model, variables, Model.masks, looked, grid, content)
    after = call(model, variables, Model.carry, looked, entered)
    return looked, QueryPredictions(logits, masks), after


def limited_share(
    masking: MaskedAttention, step: Int32[Array, ""]
) -> Float32[Array, "L"]:
    """Returns the probability of masked attention for each query block.

    1 before `start`, 0 from `end` on, (1 - progress)^0.9 in between.

    Args:
      masking: settings, with a start per block.
      step: number of updates so far.
    """
    start = jnp.asarray(masking.start, jnp.float32)
    end = jnp.asarray(masking.end, jnp.float32)
    now = step.astype(jnp.float32)
    progress = (now - start) / jnp.maximum(end - start, 1.0)
    share = (1.0 - jnp.clip(progress, 0.0, 1.0)) ** _POWER
    return jnp.where(now >= end, 0.0, share)


def draw_limited(
    key: PRNGKeyArray, share: Float32[Array, "L"], lead: tuple[int, ...], queries: int
) -> Bool[Array, "*lead L Q"]:
    """Draws the queries with masked attention, anew for each block and image."""
    shape = (*lead, len(share), queries)
    ones = (1,) * len(lead)
    return jax.random.uniform(key, shape) < share.reshape(*ones, -1, 1)


def draw_scale(key: PRNGKeyArray, most: float) -> Scale:
    """Draws the rotary position scale of a batch, uniform in its logarithm.

    As in DINOv3's training; all frames of all clips share it.

    Args:
      key: random key.
      most: the scale is in [1 / most, most]; 1 for no scaling.
    """
    if most == 1:
        return None
    bound = math.log(most)
    return jnp.exp(jax.random.uniform(key, (), jnp.float32, -bound, bound))


def loss_terms(
    found: QueryPredictions,
    truth: ClipTruth,
    key: PRNGKeyArray,
    weights: LossSettings,
    known: Int32[Array, "A B M"],
    area: Float32[Array, "B 2"],
) -> tuple[dict[str, Float32[Array, ""]], Int32[Array, "A B M"]]:
    """Returns weighted terms, summed over all predictions, each matched on its own.

    Args:
      found: predictions [A T B Q ..].
      truth: ground truth of the clips.
      key: random key.
      weights: settings of the loss.
      known: queries of objects that appeared in earlier frames.
      area: share of the canvas's width and height where masks are compared.

    Returns:
      The terms, and the queries that are known now.
    """
    total: dict[str, Float32[Array, ""]] = {}
    apart, matches = weights.matching == "frame", []
    if apart:
        area = jnp.repeat(area, truth.present.shape[2], axis=0)
        truth = frames_apart(truth)
    for index, one in enumerate(zip(*found, strict=True)):
        logits, masks = (x.swapaxes(0, 1) for x in one)
        if apart:
            logits, masks = (x.reshape(-1, 1, *x.shape[2:]) for x in (logits, masks))
        draws = draw_points(jax.random.fold_in(key, index), truth, weights.points)
        draws = jax.vmap(_within)(draws, area)
        before = None if apart else known[index]
        matched = match_clips(logits, masks, truth, draws.match, weights, before)
        terms = clip_terms(logits, masks, truth, draws, matched, weights)
        total = {name: x + total.get(name, 0.0) for name, x in terms.items()}
        matches.append(matched)
    return total, known if apart else jnp.stack(matches)


def _within(draws: Draws, area: Float32[Array, "2"]) -> Draws:
    """Restricts the sampled points of a clip to the top-left part of the canvas."""
    return jax.tree.map(lambda x: x * area.reshape(*[1] * (x.ndim - 1), 2), draws)


def _seen_share(settings: Settings, part: FrameSpan) -> Float32[Array, "B 2"]:
    """Returns the share of the canvas's width and height that the network sees."""
    height, width = part.images.shape[2:4]
    patch = settings.model.backbone.patch
    content = content_of(settings, part.sizes, (height // patch, width // patch))
    if content is None:
        return jnp.ones((len(part.sizes), 2), jnp.float32)
    canvas = jnp.array([height, width], jnp.float32)[None]
    return ((content * patch).astype(jnp.float32) / canvas)[:, ::-1]


def _predictions(settings: Settings) -> int:
    """Returns the number of predictions per frame that are trained."""
    return settings.model.decoder.blocks + settings.loss.aux_last


def _encode(
    model: Model, variables: dict, part: FrameSpan, content: Content
) -> tuple[Float32[Array, "T B S C"], dict]:
    """Returns the tokens of all frames, and updated batch norm statistics."""
    pixels = jax.vmap(lambda x, size: normalize(x, size, style="torch"))
    flat = _by_frame(pixels(part.images, part.sizes))
    valid, content = _of_frames(part, content)
    tokens, updates = model.apply(
        variables, flat, True, valid, content, part.scale,
        method=Model.encode, mutable=["batch_stats"],
    )  # fmt: skip
    return _by_clip(tokens, part), dict(updates.get("batch_stats", {}))


def _fuse_stored(
    model: Model, variables: dict, part: FrameSpan, content: Content
) -> tuple[Float32[Array, "T B S C"], dict]:
    """Same as `_encode`, of stored features of the backbone in place of images."""
    levels = _by_frame(jnp.asarray(part.features, jnp.float32))
    grid = model.backbone.grid(*part.images.shape[2:4])
    valid, content = _of_frames(part, content)
    tokens, updates = model.apply(
        variables, levels, grid, True, valid, content,
        method=Model.fuse, mutable=["batch_stats"],
    )  # fmt: skip
    return _by_clip(tokens, part), dict(updates.get("batch_stats", {}))


def _by_frame(x: Array) -> Array:
    """[B, T, ..] to [T B, ..]."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _by_clip(x: Array, part: FrameSpan) -> Array:
    """[T B, ..] to [T, B, ..]."""
    return x.reshape(part.images.shape[1], -1, *x.shape[1:])


def _of_frames(
    part: FrameSpan, content: Content
) -> tuple[Bool[Array, "M"], Int32[Array, "M 2"] | None]:
    """Returns which of all frames are real, and their content."""
    if content is not None:
        content = jnp.tile(content, (part.images.shape[1], 1))
    return part.truth.frame_valid.T.reshape(-1), content


def _draw_limits(
    settings: Settings, variables: dict, batch: Batch, key: Array
) -> Array | None:
    """Draws the queries with masked attention, [T, B, L, Q]; None if there are none."""
    masking = settings.model.masked_attention
    if not masking.start:
        return None
    step = variables.get("progress", {}).get("step", jnp.int32(0))
    lead = batch.images.shape[1::-1]
    share = limited_share(masking, jnp.asarray(step))
    return draw_limited(key, share, lead, settings.model.queries)
