"""Pictures of a clip during training: ground truth above the predicted tracks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vis_jax.evaluate.clips import Piece
from vis_jax.evaluate.masks import Sizes
from vis_jax.evaluate.stream import final_frames
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult
from vis_jax.structures import Batch, Clip
from vis_jax.systems.system import System
from vis_jax.visualize.draw import contact_sheet, draw_frame

SHOWN_FROM = 0.3  # score


def make_pictures(system: System, names: Sequence[str]) -> Callable:
    """Returns a function (variables, batch, step) -> {"clip": uint8 [H, W, 3]}.

    The picture has one column per frame of the first clip, ground truth above tracks.
    """
    step_fn = jax.jit(system.step)

    def draw(variables: dict, batch: dict[str, np.ndarray], step: int) -> dict:
        del step
        one = Batch(**{key: array[0] for key, array in batch.items()})
        clip = Clip(one.images, one.frame_valid, one.sizes)
        _, found = step_fn(variables, system.start(clip), clip)
        canvas, count = (one.images.shape[1], one.images.shape[2]), len(one.images)
        rows = count + system.window.delay
        sizes = Sizes(canvas, canvas, canvas)
        piece = Piece(clip, sizes, -system.window.delay, rows, count)
        frames = final_frames(found, piece, system.render, NO_CLOCK)
        truth = _row(
            one.images,
            one.masks[one.instance_valid],
            one.track_ids[one.instance_valid],
            one.labels[one.instance_valid],
            np.ones(int(one.instance_valid.sum())),
            names,
        )
        tracks = [
            _drawn(image, frame, names)
            for image, frame in zip(one.images, frames, strict=True)
        ]
        return {"clip": contact_sheet([*truth, *tracks], columns=len(truth))}

    return draw


def _drawn(image: np.ndarray, frame: FrameResult, names: Sequence[str]) -> np.ndarray:
    """Draws the tracks that score at least `SHOWN_FROM` on a frame."""
    shown = frame.scores >= SHOWN_FROM
    return draw_frame(
        image,
        frame.masks[shown],
        frame.ids[shown],
        labels=frame.labels[shown],
        names=names,
        scores=frame.scores[shown],
    )


def _row(
    images: Any,
    masks: Any,
    track_ids: Any,
    labels: Any,
    scores: Any,
    names: Sequence[str],
) -> list[np.ndarray]:
    """Draws masks [N, T, H, W] on frames [T, H, W, 3]."""
    return [
        draw_frame(
            image, masks[:, t], track_ids, labels=labels, names=names, scores=scores
        )
        for t, image in enumerate(images)
    ]
