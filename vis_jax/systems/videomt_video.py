"""VidEoMT at test time: frame after frame, with a state of fixed size.

Letters: T frames, Q queries, C channels, K1 classes including no object, D masks per
frame.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.backbones import vit
from vis_jax.backbones.normalize import normalize
from vis_jax.ops.rotary import inside_content
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.videomt_model import Content, Looked, Model, call, content_of
from vis_jax.systems.videomt_settings import Settings, VideoTestSettings
from vis_jax.typing import Array, Bool, Float32, Int32


class State(NamedTuple):
    """State of a video, of the same size after any number of frames."""

    entered: Float32[Array, "Q C"]  # queries that enter the next frame
    begun: Bool[Array, ""]  # False: the learned queries enter
    logits: Float32[Array, "Q K1"]  # mean over all frames
    logits_present: Float32[Array, "Q K1"]  # mean over frames with the object
    frames: Int32[Array, ""]
    frames_present: Int32[Array, "Q"]


def empty_state(settings: Settings) -> State:
    """Returns the state before the first frame."""
    model = settings.model
    queries, dim = model.queries, vit.sizes_of(model.backbone).dim
    none = jnp.zeros((queries, model.num_classes + 1), jnp.float32)
    return State(
        entered=jnp.zeros((queries, dim), jnp.float32),
        begun=jnp.zeros((), bool),
        logits=none,
        logits_present=jnp.zeros_like(none),
        frames=jnp.zeros((), jnp.int32),
        frames_present=jnp.zeros((queries,), jnp.int32),
    )


def step(
    model: Model, settings: Settings, variables: dict, state: State, clip: Clip
) -> tuple[State, Predictions]:
    """Processes the frames of a clip one after the other.

    For a whole video, only the tracks that are best at the end get masks. Clip by clip,
    each frame has masks of the queries that are or have been objects.

    Args:
      model, settings, variables: model, settings and variables of the system.
      state: after the clip before.
      clip: frames of one video.
    """
    test = settings.test
    grid = model.backbone.grid(*clip.images.shape[1:3])
    content = content_of(settings, jnp.asarray(clip.size)[None], grid)
    tokens = _encode_frames(model, variables, clip, test.chunk, content)
    whole = test.mode == "video"
    count = min(test.top if whole else test.objects, settings.model.queries)

    def masks_of(looked: Looked, rows: Array) -> Float32[Array, "D h w"]:
        chosen = looked._replace(queries=looked.queries[:, rows])
        return call(model, variables, Model.masks, chosen, grid, content)[0]

    def frame(state: State, inputs):
        tokens, valid = inputs
        learned = call(model, variables, Model.first, 1)
        entered = jnp.where(state.begun, state.entered[None], learned)
        looked = call(
            model, variables, Model.look, entered, tokens[None], grid, (), None, content
        )
        logits = call(model, variables, Model.classify, looked)[0]
        after = call(model, variables, Model.carry, looked, entered)[0]
        new = updated(state, logits, after)
        state = jax.tree.map(lambda a, b: jnp.where(valid, a, b), new, state)
        if whole:
            return state, looked
        rows = queries_with_masks(state, logits, test, count)
        return state, (rows, masks_of(looked, rows))

    state, found = jax.lax.scan(frame, state, (tokens, jnp.asarray(clip.frame_valid)))
    probs = track_probs(state, test)
    if not whole:
        return state, _predictions(probs, *found)
    rows = _best(probs.max(axis=-1), count)
    masks = jax.lax.map(lambda looked: masks_of(looked, rows), found)
    probs = _by_quality(probs, rows, masks, clip, test.top) if test.quality else probs
    slots = jnp.broadcast_to(rows[None], masks.shape[:2])
    return state, _predictions(probs, slots, masks)


def _by_quality(
    probs: Float32[Array, "Q K"],
    rows: Int32[Array, "D"],
    masks: Float32[Array, "T D h w"],
    clip: Clip,
    pairs: int,
) -> Float32[Array, "Q K"]:
    """Same as `probs_by_quality`, of the best pairs, ignoring the padding of a clip."""
    inside = cells_inside(clip, masks.shape[2:])
    return probs_by_quality(best_pairs(probs, pairs), rows, masks, inside)


def cells_inside(clip: Clip, size: tuple[int, ...]) -> Bool[Array, "T h w"]:
    """Returns the cells of a clip's masks that any content reaches.

    Args:
      clip: the frames.
      size: height and width of the masks in cells, which span the canvas.
    """
    cells, canvas = jnp.array(size), jnp.array(clip.images.shape[1:3])
    content = -(-jnp.asarray(clip.size) * cells // canvas)
    inside = jnp.asarray(clip.frame_valid)[:, None, None]
    return inside & inside_content(content, (size[0], size[1]))[None]


def best_pairs(probs: Float32[Array, "Q K"], count: int) -> Float32[Array, "Q K"]:
    """Returns the `count` highest probabilities, and 0 for other queries and classes.

    The EoMT authors choose pairs of a query and a class by this before they weight them
    by `probs_by_quality`.
    """
    flat = probs.reshape(-1)
    values, places = jax.lax.top_k(flat, min(count, flat.size))
    return jnp.zeros_like(flat).at[places].set(values).reshape(probs.shape)


def probs_by_quality(
    probs: Float32[Array, "Q K"],
    rows: Int32[Array, "D"],
    masks: Float32[Array, "T D h w"],
    inside: Bool[Array, "T h w"],
) -> Float32[Array, "Q K"]:
    """Returns class probabilities times the mean mask probability inside the mask.

    Instance score of the EoMT authors. Queries without masks get 0.

    Args:
      probs: probabilities of all queries.
      rows: queries with masks.
      masks: their logits.
      inside: cells that are not padding.
    """
    on = (masks > 0) & inside[:, None]
    total = jnp.where(on, jax.nn.sigmoid(masks), 0.0).sum(axis=(0, 2, 3))
    quality = total / (on.sum(axis=(0, 2, 3)).astype(jnp.float32) + 1e-6)
    return jnp.zeros_like(probs).at[rows].set(probs[rows] * quality[:, None])


def _predictions(
    probs: Float32[Array, "Q K"],
    slots: Int32[Array, "T D"],
    masks: Float32[Array, "T D h w"],
) -> Predictions:
    """Builds predictions in which every query is a track."""
    tracks = jnp.arange(len(probs), dtype=jnp.int32)
    valid = jnp.ones((len(probs),), bool)
    return Predictions(probs, tracks + 1, valid, slots, masks)


def track_probs(state: State, test: VideoTestSettings) -> Float32[Array, "Q K"]:
    """Returns class probabilities of every query as a track, from its mean logits."""
    mean = state.logits
    if test.score == "present":
        seen = (state.frames_present > 0)[:, None]
        mean = jnp.where(seen, state.logits_present, mean)
    probs = jax.nn.softmax(mean, axis=-1)[:, :-1]
    long = state.frames_present >= test.least_frames
    return jnp.where(long[:, None], probs, 0.0)


def queries_with_masks(
    state: State,
    logits: Float32[Array, "Q K1"],
    test: VideoTestSettings,
    count: int,
) -> Int32[Array, "D"]:
    """Returns the queries that get a mask in a frame: best in it, or in all so far.

    Args:
      state: after the frame.
      logits: logits of the frame.
      test: settings of the test.
      count: masks per frame.
    """
    now = jax.nn.softmax(logits, axis=-1)[:, :-1].max(axis=-1)
    return _best(jnp.maximum(now, track_probs(state, test).max(axis=-1)), count)


def _encode_frames(
    model: Model, variables: dict, clip: Clip, chunk: int, content: Content
) -> Float32[Array, "T S C"]:
    """Returns the tokens of one video, computed `chunk` frames at a time."""

    def of(images):
        pixels = normalize(images, clip.size, style="torch")
        real = None
        if content is not None:
            real = jnp.broadcast_to(content, (len(images), 2))
        return call(model, variables, Model.encode, pixels, False, None, real)

    frames = clip.images.shape[0]
    if frames <= chunk:
        return of(clip.images)
    padding = -frames % chunk
    images = jnp.pad(clip.images, ((0, padding), *[(0, 0)] * 3))
    out = jax.lax.map(of, images.reshape(-1, chunk, *images.shape[1:]))
    return out.reshape(-1, *out.shape[2:])[:frames]


def updated(
    state: State, logits: Float32[Array, "Q K1"], after: Float32[Array, "Q C"]
) -> State:
    """Returns the state after one more frame; running means, as sums would lose digits.

    Args:
      state: before this frame.
      logits: logits of this frame.
      after: the queries that enter the next one.
    """
    present = logits.argmax(axis=-1) < logits.shape[-1] - 1
    frames = state.frames + 1
    frames_present = state.frames_present + present.astype(jnp.int32)
    share = jnp.where(present, 1.0, 0.0) / jnp.maximum(frames_present, 1).astype(
        jnp.float32
    )
    apart, apart_present = logits - state.logits, logits - state.logits_present
    return State(
        entered=after,
        begun=jnp.ones_like(state.begun),
        logits=state.logits + apart / frames.astype(jnp.float32),
        logits_present=state.logits_present + share[:, None] * apart_present,
        frames=frames,
        frames_present=frames_present,
    )


def _best(scores: Float32[Array, "Q"], count: int) -> Int32[Array, "D"]:
    """Returns the queries with the highest scores."""
    return jax.lax.top_k(scores, count)[1].astype(jnp.int32)
