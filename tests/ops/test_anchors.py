import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.anchors import AnchorGrid, cell_anchors, inside, make_anchors

RATIOS = (0.5, 1.0, 2.0)
STRIDES = ((4, 4), (8, 8), (16, 16), (32, 32), (64, 64))
SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)


@pytest.mark.parametrize(
    ("level", "inclusive"),
    [
        (0, [[-21, -9, 24, 12], [-14, -14, 17, 17], [-9, -21, 12, 24]]),
        (1, [[-41, -19, 48, 26], [-28, -28, 35, 35], [-19, -41, 26, 48]]),
        (4, [[-330, -149, 393, 212], [-224, -224, 287, 287], [-149, -330, 212, 393]]),
    ],
)
def test_the_anchors_of_mmdetection(level, inclusive):
    grid = AnchorGrid(SIDES, RATIOS, STRIDES, centre=0.5, rounded=True)
    ours = cell_anchors(SIDES[level], STRIDES[level], grid)
    np.testing.assert_array_equal(ours - np.array([0, 0, 1, 1]), inclusive)


def test_order_is_level_row_column_ratio():
    grid = AnchorGrid((4.0, 8.0), (1.0, 4.0), ((2, 3), (4, 4)), 0.0, rounded=False)
    anchors = np.asarray(make_anchors([(2, 2), (1, 1)], grid))
    assert anchors.shape == (10, 4)
    np.testing.assert_array_equal(anchors[0], [-2, -2, 2, 2])
    np.testing.assert_array_equal(anchors[1], [-1, -4, 1, 4])
    np.testing.assert_array_equal(anchors[2], [1, -2, 5, 2])  # next column
    np.testing.assert_array_equal(anchors[4], [-2, 0, 2, 4])  # next row
    np.testing.assert_array_equal(anchors[8], [-4, -4, 4, 4])


def test_as_many_maps_as_strides():
    grid = AnchorGrid(SIDES, RATIOS, STRIDES, 0.5, rounded=True)
    with pytest.raises(ValueError, match="got 1, 5 and 5"):
        make_anchors([(2, 2)], grid)


def test_inside_up_to_the_last_pixel():
    anchors = np.array([[0.0, 0, 30, 20], [-1, 0, 5, 5], [0, 0, 30, 21], [9, 9, 31, 9]])
    found = compiled(inside)(anchors, np.array([20, 30]))
    np.testing.assert_array_equal(found, [True, False, False, False])
