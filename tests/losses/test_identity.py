import math

import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.losses.identity import match_loss

LOG3 = math.log(3)
loss = compiled(match_loss)
ZEROS = np.zeros((3, 2, 3))  # images, regions, columns: each column has 1/3
TARGETS = np.array([[0, 1], [2, 0], [1, 1]])


def test_each_image_is_averaged_over_its_positives():
    logits = ZEROS.copy()
    logits[0, 0, 0] = math.log(4.0)  # 4/6 for the first target
    positive = np.array([[True, True], [True, False], [False, False]])
    first = (math.log(6 / 4) + LOG3) / 2
    # One positive counts like many, and none counts 0 and stays among the images.
    expected = (first + LOG3 + 0) / 3
    np.testing.assert_allclose(loss(logits, TARGETS, positive), expected, rtol=1e-6)


def test_one_image_is_a_batch_of_one():
    positive = np.array([True, False])
    one = loss(ZEROS[0], TARGETS[0], positive)
    np.testing.assert_allclose(one, LOG3, rtol=1e-6)


def test_only_positives_and_real_columns_get_a_gradient():
    logits = ZEROS.copy()
    logits[..., 2] = -1e9
    positive = np.array([[True, False], [False, False], [True, True]])
    targets = np.array([[0, 2], [2, 2], [1, 1]])
    gradient = compiled(jax.grad(match_loss))(logits, targets, positive)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient.any(axis=-1), positive)
    assert not gradient[..., 2].any()
    np.testing.assert_allclose(gradient[0, 0, :2], [-0.5 / 3, 0.5 / 3], rtol=1e-6)
