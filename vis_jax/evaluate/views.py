"""Test-time augmentation: a video at several resolutions, averaged.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022. One resolution is the pivot; what the others find is matched to it.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.read_video import resize_frames
from vis_jax.association.views import match_to_pivot
from vis_jax.evaluate.assemble import Tracks, VideoPrediction, best_pairs
from vis_jax.evaluate.clips import bucket, clips_of
from vis_jax.evaluate.masks import Matrices, Sizes, masks_of, matrices, run_lengths
from vis_jax.structures import Predictions
from vis_jax.systems.system import System, TestSettings
from vis_jax.typing import Array, Bool, Float32, Int32

_STRIDE = 8  # pixels of the pivot between the points that results are compared at


class View(NamedTuple):
    """A video at one resolution."""

    found: Predictions  # every query of the system
    frame_valid: Bool[Array | np.ndarray, "T"]
    sizes: Sizes


def make_infer(
    system: System, variables: dict, test: TestSettings
) -> Callable[..., VideoPrediction]:
    """As `infer.make_infer`, with `test.tta`: short sides in pixels.

    The result at `test.short_side`, one of them, is the pivot.
    """
    step, variables = jax.jit(system.step), jax.device_put(variables)

    def infer(
        frames: Iterable[np.ndarray], *, height: int, width: int, num_frames: int
    ) -> VideoPrediction:
        def view(resized: list[np.ndarray]) -> View:
            length = bucket(num_frames, test.frame_buckets)
            clips = clips_of(resized, num_frames, length=length, stride=1)
            clip, _ = next(clips)
            _, found = step(variables, system.start(clip), clip)
            canvas = (clip.images.shape[1], clip.images.shape[2])
            sizes = Sizes(canvas, resized[0].shape[:2], (height, width))
            return View(found, clip.frame_valid, sizes)

        videos = _resized(frames, test)
        views = [view(videos[short]) for short in test.tta]
        return merge(
            views,
            pivot=test.tta.index(test.short_side),
            top=test.top,
            num_frames=num_frames,
        )

    return infer


def _resized(
    frames: Iterable[np.ndarray], test: TestSettings
) -> dict[int, list[np.ndarray]]:
    """The frames by short side, read once."""
    videos: dict[int, list[np.ndarray]] = {short: [] for short in test.tta}
    for frame in frames:
        for short, video in videos.items():
            video.append(resize_frames(frame[None], short, test.long_side)[0])
    return videos


def merge(
    views: list[View], *, pivot: int, top: int, num_frames: int
) -> VideoPrediction:
    """Mean of the views, each matched to the pivot.

    Class probabilities are averaged first; the masks of the best (query, class) pairs
    are averaged at the original size.

    Args:
      views: of one video.
      pivot: index of the view that the others are matched to.
      top: pairs to keep.
      num_frames: real frames.
    """
    own = np.arange(len(views[pivot].found.class_probs))
    rows = [own if i == pivot else _rows(views[pivot], v) for i, v in enumerate(views)]
    probs = [
        np.asarray(v.found.class_probs)[r] for v, r in zip(views, rows, strict=True)
    ]
    mean = np.mean(probs, axis=0)
    pairs = best_pairs(mean, top) // mean.shape[1]
    chosen = list(dict.fromkeys(pairs.tolist()))
    # As many as there are pairs, so that the number of programs stays small.
    padded = np.resize(chosen, len(pairs))
    logits = [v.found.mask_logits[r[padded]] for v, r in zip(views, rows, strict=True)]
    tracks = Tracks(top)
    tracks.update(chosen, mean[chosen])
    masks = masks_of(
        logits, [v.sizes for v in views], count=num_frames, at_once=num_frames
    )
    for frame, masks_of_frame in enumerate(masks):
        found = run_lengths(masks_of_frame[: len(chosen)])
        for number, segmentation in zip(chosen, found, strict=True):
            tracks.add(number, frame, segmentation)
    return tracks.result(num_frames, views[pivot].sizes.original)


def _rows(pivot: View, view: View) -> np.ndarray:
    """The query of a view for every query of the pivot."""
    height, width = pivot.sizes.content
    grid = (-(-height // _STRIDE), -(-width // _STRIDE))

    def to_grid(one: View) -> tuple[Array, Matrices]:
        logits = one.found.mask_logits
        size = (logits.shape[2], logits.shape[3])
        return logits, matrices(size, one.sizes._replace(original=grid))

    rows = _match(
        pivot.found.class_probs,
        view.found.class_probs,
        to_grid(pivot),
        to_grid(view),
        pivot.frame_valid,
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
    """`match_to_pivot` on the grid that the matrices lead to."""

    def resize(
        logits: Float32[Array, "N T h w"], axes: Matrices
    ) -> Float32[Array, "N T H W"]:
        return jnp.einsum(
            "nthw,Hh,Ww->ntHW", logits, *axes, precision=jax.lax.Precision.HIGHEST
        )

    return match_to_pivot(
        pivot_probs, resize(*pivot_masks), probs, resize(*masks), frame_valid
    )
