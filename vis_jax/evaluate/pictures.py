"""Pictures of a clip in training: its truth above what the system finds."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from vis_jax.evaluate.masks import Sizes, frame_masks
from vis_jax.structures import Batch, Clip
from vis_jax.systems.system import System
from vis_jax.visualize.draw import contact_sheet, draw_frame

SHOWN_FROM = 0.3  # score


def make_pictures(system: System, names: Sequence[str]) -> Callable:
    """A function (variables, batch, step) -> {"clip": uint8 [H, W, 3]}.

    The picture has one column a frame of the first clip: truth above, tracks below.
    """
    step_fn = jax.jit(system.step)

    def draw(variables: dict, batch: dict[str, np.ndarray], step: int) -> dict:
        del step
        one = Batch(**{key: array[0] for key, array in batch.items()})
        clip = Clip(one.images, one.frame_valid, one.sizes)
        _, found = step_fn(variables, system.start(clip), clip)
        canvas = (one.images.shape[1], one.images.shape[2])
        keep = np.flatnonzero(np.asarray(found.valid) & (found.scores >= SHOWN_FROM))
        count = len(one.images)
        masks = np.zeros((len(keep), count, *canvas), bool)
        frames = frame_masks(
            found, Sizes(canvas, canvas, canvas), keep=keep, count=count, at_once=count
        )
        for frame, (rows, shown) in enumerate(frames):
            masks[np.searchsorted(keep, rows), frame] = shown.swapaxes(-1, -2)
        truth = _row(
            one.images,
            one.masks[one.instance_valid],
            one.track_ids[one.instance_valid],
            one.labels[one.instance_valid],
            np.ones(int(one.instance_valid.sum())),
            names,
        )
        tracks = _row(
            one.images,
            masks,
            np.asarray(found.track_ids)[keep],
            np.asarray(found.labels)[keep],
            np.asarray(found.scores)[keep],
            names,
        )
        return {"clip": contact_sheet([*truth, *tracks], columns=len(truth))}

    return draw


def _row(images, masks, track_ids, labels, scores, names) -> list[np.ndarray]:
    """The frames [T, H, W, 3] with masks [N, T, H, W] drawn on them."""
    return [
        draw_frame(
            image, masks[:, t], track_ids, labels=labels, names=names, scores=scores
        )
        for t, image in enumerate(images)
    ]
