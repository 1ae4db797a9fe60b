import math

import numpy as np
import pytest

from tests.golden.cases import FOLDER
from vis_jax.ops.priors import PriorGrid, yolact_priors

COCO = PriorGrid((24, 48, 96, 192, 384), (1, 1 / 2, 2), divisor=550, square=True)
RGNNVIS = PriorGrid(
    (24, 48, 96, 192, 384), (1 / 1.8, 0.5 / 1.8, 2 / 1.8), divisor=500, square=False
)


def test_equal_to_yolact():
    """Priors of the official code for an image of 128 x 160."""
    sizes = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
    expected = np.load(FOLDER / "shared_ops.npz")["yolact_r50/priors"]
    np.testing.assert_allclose(yolact_priors(sizes, COCO), expected, rtol=1e-6)


def test_as_many_as_the_papers_canvases_have():
    sides = [69, 35, 18, 9, 5]
    assert yolact_priors([(x, x) for x in sides], COCO).shape == (19_248, 4)
    sizes = [(60, 108), (30, 54), (15, 27), (8, 14), (4, 7)]
    assert yolact_priors(sizes, RGNNVIS).shape == (25_935, 4)


def test_sizes_of_the_first_level():
    """Ratios in pixels are 1, 1/2 and 2 on a canvas of 480 x 864."""
    grid = RGNNVIS._replace(sides=(24,))
    priors = np.asarray(yolact_priors([(60, 108)], grid))
    expected = [[0.03578, 0.06440], [0.02530, 0.09107], [0.05060, 0.04554]]
    np.testing.assert_allclose(priors[:3, 2:], expected, atol=1e-5)
    pixels = priors[:3, 2:] * [864, 480]
    np.testing.assert_allclose(pixels[:, 0] / pixels[:, 1], [1, 0.5, 2], rtol=1e-5)


def test_those_of_coco_are_square():
    priors = np.asarray(yolact_priors([(1, 1)], COCO._replace(sides=(24,))))
    sides = [24 * math.sqrt(ratio) / 550 for ratio in (1, 1 / 2, 2)]
    np.testing.assert_allclose(priors[:, 2], sides, rtol=1e-6)
    np.testing.assert_array_equal(priors[:, 2], priors[:, 3])


def test_the_order_is_level_row_column_ratio():
    grid = PriorGrid((10, 20), (1, 4), divisor=100, square=False)
    priors = np.asarray(yolact_priors([(2, 3), (1, 1)], grid))
    expected = []
    for side, (height, width) in ((10, (2, 3)), (20, (1, 1))):
        for i in range(height):
            for j in range(width):
                for ratio in (1, 4):
                    root = math.sqrt(ratio)
                    centre = [(j + 0.5) / width, (i + 0.5) / height]
                    expected.append([*centre, side * root / 100, side / root / 100])
    np.testing.assert_allclose(priors, expected, rtol=1e-6)


def test_a_side_for_each_level():
    with pytest.raises(ValueError, match="sizes: expected 5 levels, got 1"):
        yolact_priors([(2, 3)], COCO)
