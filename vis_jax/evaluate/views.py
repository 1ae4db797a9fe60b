"""Test-time augmentation: averages predictions at several resolutions.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022. One resolution is the pivot; predictions at the others are matched to
it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.read_video import fit_frame
from vis_jax.evaluate.clips import Piece, pieces_of
from vis_jax.evaluate.masks import Matrices, masks_of, matrices, run_lengths
from vis_jax.evaluate.stream import Program, begin
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.soft_overlap import soft_match_cost
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.collect import best_pairs
from vis_jax.results.frame import FrameResult, LiveTracks, Stream
from vis_jax.structures import Predictions
from vis_jax.systems.system import TestSettings
from vis_jax.typing import Array, Bool, Float32, Int32

_STRIDE = 8  # pixels of the pivot between sampled mask points


class Resolution(NamedTuple):
    """Predictions for a video at one resolution."""

    found: Predictions  # every query of the system, in every frame
    piece: Piece


def run_program(program: Program, test: TestSettings) -> Stream:
    """Like `stream.run_program`, with `test.tta`: short sides in pixels.

    The resolution `test.short_side`, one of them, is the pivot. Mask i of every frame
    belongs to query i and covers the whole canvas.

    Raises:
      ValueError: the program reads clips, or its masks may not overlap.
    """
    if program.window.length is not None or program.render.overlap != "independent":
        raise ValueError(
            "test.tta: expected () for a system that reads clips or whose masks do not"
            f" overlap, got {test.tta}"
        )

    def stream(
        frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        with clock("reading"):
            videos, original = _resized(frames, test)
        pieces = [
            piece
            for images in videos
            for piece in pieces_of(images, program.window, original)
        ]
        states = [begin(program, piece.clip, clock) for piece in pieces]
        with clock("model"):
            views = [
                Resolution(program.step(state, piece.clip)[1], piece)
                for state, piece in zip(states, pieces, strict=True)
            ]
            jax.block_until_ready([view.found for view in views])
        if views:
            pivot = test.tta.index(test.short_side)
            yield from merge(views, pivot=pivot, top=test.top, clock=clock)

    return stream


def _resized(
    frames: Iterable[np.ndarray], test: TestSettings
) -> tuple[list[list[np.ndarray]], tuple[int, int]]:
    """Reads the frames once and resizes them to each resolution.

    Also returns their original size.
    """
    videos: list[list[np.ndarray]] = [[] for _ in test.tta]
    original = (0, 0)
    for frame in frames:
        original = frame.shape[:2]
        for short, video in zip(test.tta, videos, strict=True):
            video.append(fit_frame(frame, short, test.long_side))
    return videos, original


def merge(
    views: list[Resolution], *, pivot: int, top: int, clock: Clock = NO_CLOCK
) -> Iterator[FrameResult]:
    """Yields the frames of the mean of the views, each matched to the pivot.

    Class probabilities are averaged first; then the masks of the best (query, class)
    pairs at the original size.

    Args:
      views: views of one video.
      pivot: index of the view that the others are matched to.
      top: number of pairs to keep.
      clock: times the masks.
    """
    own = np.arange(len(views[pivot].found.class_probs))
    rows = [own if i == pivot else _rows(views[pivot], v) for i, v in enumerate(views)]
    probs = [
        np.asarray(v.found.class_probs)[r] for v, r in zip(views, rows, strict=True)
    ]
    mean = np.mean(probs, axis=0)
    pairs = best_pairs(mean, top) // mean.shape[1]
    chosen = list(dict.fromkeys(pairs.tolist()))
    # Always one per pair, so that few programs are compiled.
    padded = np.resize(chosen, len(pairs))
    logits = [
        jnp.asarray(v.found.mask_logits)[:, r[padded]]
        for v, r in zip(views, rows, strict=True)
    ]
    tracks = LiveTracks(np.asarray(chosen, np.int32) + 1, mean[chosen])
    piece, objects = views[pivot].piece, np.arange(len(chosen))
    sizes = [view.piece.sizes for view in views]
    frames = range(piece.rows)
    masks = masks_of(logits, sizes, rows=frames, at_once=piece.at_once)
    for frame in frames:
        with clock("masks"):
            segmentations = run_lengths(next(masks)[: len(chosen)])
        yield FrameResult(frame, tracks, objects, segmentations, piece.sizes.original)


def _rows(pivot: Resolution, view: Resolution) -> np.ndarray:
    """Returns the view's query for each query of the pivot."""
    height, width = pivot.piece.sizes.content
    grid = (-(-height // _STRIDE), -(-width // _STRIDE))

    def to_grid(one: Resolution) -> tuple[Array, Matrices]:
        logits = jnp.asarray(one.found.mask_logits)
        size = (logits.shape[2], logits.shape[3])
        return logits, matrices(size, one.piece.sizes._replace(original=grid))

    rows = _match(
        pivot.found.class_probs,
        view.found.class_probs,
        to_grid(pivot),
        to_grid(view),
        pivot.piece.clip.frame_valid,
    )
    return np.asarray(rows)


@jax.jit
def _match(
    pivot_probs: Float32[Array, "N K"],
    probs: Float32[Array, "M K"],
    pivot_masks: tuple[Array, Matrices],
    masks: tuple[Array, Matrices],
    frame_valid: Bool[Array, "T"],
) -> Int32[Array, "N"]:
    """Runs `match_to_pivot` on masks resized by the matrices."""

    def resize(
        logits: Float32[Array, "T N h w"], axes: Matrices
    ) -> Float32[Array, "N T H W"]:
        return jnp.einsum(
            "tnhw,Hh,Ww->ntHW", logits, *axes, precision=jax.lax.Precision.HIGHEST
        )

    return match_to_pivot(
        pivot_probs, resize(*pivot_masks), probs, resize(*masks), frame_valid
    )


def match_to_pivot(
    pivot_probs: Float32[Array, "N K"],
    pivot_logits: Float32[Array, "N T h w"],
    class_probs: Float32[Array, "N K"],
    mask_logits: Float32[Array, "N T h w"],
    frame_valid: Bool[Array, "T"],
) -> Int32[Array, "N"]:
    """Returns the instance matched to each of the pivot, one to one (Eq. 4).

    Args:
      pivot_probs, pivot_logits: classes and masks of the pivot.
      class_probs, mask_logits: of the other resolution, on the same grid of pixels.
      frame_valid: False marks padding.
    """
    count = pivot_probs.shape[0]
    shared = jnp.broadcast_to(frame_valid[None], (count, frame_valid.shape[0]))
    masks = soft_match_cost(mask_logits, jax.nn.sigmoid(pivot_logits), shared)
    labels = pivot_probs.argmax(axis=1)
    cost = masks - 2 * class_probs[:, labels]
    return hungarian(cost, jnp.ones((count,), bool))
