import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.report.scene import unpack
from vis_jax.formats.tracks import TruthVideo
from vis_jax.report.tubes import MAX_FRAMES, ShownFrames, make_view, pack_mask, runs


def encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


@pytest.mark.parametrize("size", [(7, 9), (5, 4), (1, 1), (7, 3), (2, 9), (11, 13)])
def test_masks_of_another_size_are_their_nearest_pixels(size):
    rng = np.random.default_rng(0)
    for density in (0.02, 0.5, 0.98, 1.0):
        mask = rng.random((7, 9)) < density
        rows, columns = (
            np.arange(new) * old // new
            for new, old in zip(size, mask.shape, strict=True)
        )
        expected = mask[rows[:, None], columns]
        packed = pack_mask(encoded(mask), ShownFrames(*size, 1, 1))
        if not expected.any():
            assert packed == 0
        else:
            np.testing.assert_array_equal(unpack(packed, size), expected)


def test_large_and_long_videos_are_shown_smaller():
    view = make_view(TruthVideo(1, "long", 1000, 2000, 1000), 1000)
    assert (view.height, view.width) == (320, 640)
    assert view.num_frames <= MAX_FRAMES < 1000 <= view.num_frames * view.step
    assert view.frames[-1] < 1000
    mask = np.zeros((1000, 2000), bool)
    mask[:500, 1000:] = True
    small = unpack(pack_mask(encoded(mask), view), (320, 640))
    assert small[:160, 320:].all() and small.sum() == 160 * 320


def test_runs():
    assert runs([None, 1, 1, -1, None, -1]) == [[1, 3, 1], [3, 4, -1], [5, 6, -1]]
    assert runs([]) == []
