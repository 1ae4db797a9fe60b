import jax.numpy as jnp
import numpy as np

from vis_jax.evaluate.pictures import make_pictures
from vis_jax.structures import Predictions, Window
from vis_jax.systems.system import System

SIDE, GAP = 64, 4  # of a frame, and between frames, in pixels


def _step(variables, state, clip):
    """Finds three tracks, the second with a low score; masks fill their boxes."""
    boxes = np.zeros((2, 2, 4), np.float32)
    boxes[0, 0] = 0, 0, SIDE / 2, SIDE  # left half of the first frame
    boxes[:, 1] = 0, 0, SIDE, SIDE
    boxes[1, 0] = SIDE / 2, 0, SIDE, SIDE  # right half of the second
    return state, Predictions(
        class_probs=jnp.asarray([[0.9], [0.1], [0.8]]),
        track_ids=jnp.asarray([1, 2, 3], jnp.int32),
        valid=jnp.ones(3, bool),
        slots=jnp.asarray([[0, 1], [2, 1]], jnp.int32),
        mask_logits=jnp.ones((2, 2, 2, 2)),
        mask_boxes=jnp.asarray(boxes),
    )


def test_tracks_that_score_enough_are_below_the_truth():
    batch = dict(
        images=np.zeros((1, 2, SIDE, SIDE, 3), np.uint8),
        frame_valid=np.ones((1, 2), bool),
        sizes=np.full((1, 2), SIDE, np.int32),
        masks=np.zeros((1, 1, 2, SIDE, SIDE), bool),
        boxes=np.zeros((1, 1, 2, 4), np.float32),
        present=np.zeros((1, 1, 2), bool),
        labels=np.zeros((1, 1), np.int32),
        track_ids=np.zeros((1, 1), np.int32),
        instance_valid=np.zeros((1, 1), bool),
    )
    system = System(
        lambda *_: {}, lambda *_: None, lambda clip: (), _step, Window(2, 2)
    )
    picture = make_pictures(system, ["a"])({}, batch, 0)["clip"]
    assert picture.shape == (2 * SIDE + GAP, 2 * SIDE + GAP, 3)
    below = picture[SIDE + GAP :]
    # The rows beneath the text that names a track, off the contour.
    lit = below[-8:-2].max(axis=(0, 2)) > 0
    first, second = lit[:SIDE], lit[SIDE + GAP :]
    half = SIDE // 2
    assert first[: half - 2].all()
    assert second[half + 2 :].all()
    assert not first[half + 2 :].any()
    assert not second[: half - 2].any()
    assert not picture[: SIDE // 2, :SIDE].any()  # there is no object
