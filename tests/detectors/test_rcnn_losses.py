import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.rcnn_losses import mask_losses
from vis_jax.detectors.rcnn_targets import RegionTargets

CELLS = 28


def _positives():
    """Two images, each with one region of 28 pixels a side and one padded."""
    box = np.array([3.0, 1, 3 + CELLS, 1 + CELLS])
    chosen = np.array([[True, False]] * 2)
    return RegionTargets(
        boxes=np.tile(box, (2, 2, 1)),
        truth=np.ones((2, 2), int),
        labels=np.zeros((2, 2), int),
        deltas=np.zeros((2, 2, 4)),
        positive=chosen,
        valid=chosen,
    )


def test_masks_are_learned_where_they_are():
    """A cell is a pixel here: the loss is least for the pixels of the mask itself."""
    masks = np.zeros((2, 2, 40, 40), bool)
    masks[:, 1, 9:21, 13:23] = True  # cells 8 .. 19 and 10 .. 19

    def loss(top, left):
        cells = np.full((2, 2, CELLS, CELLS, 1), -9.0, np.float32)
        cells[:, :, top:20, left:20] = 9.0
        return run(cells, _positives(), masks)

    run = compiled(mask_losses)
    assert loss(8, 10) < 2e-4
    np.testing.assert_allclose(loss(7, 10), 9 * 10 / CELLS**2, rtol=1e-2)
    np.testing.assert_allclose(loss(8, 9), 9 * 12 / CELLS**2, rtol=1e-2)
