import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.compiled import compiled
from vis_jax.ops.bilinear import (
    resize,
    resize_corners,
    resize_nearest,
    sample,
    sample_channels,
)

_sample, _channels = compiled(sample), compiled(sample_channels)
_resize, _corners, _nearest = (
    compiled(x, static_argnums=1) for x in (resize, resize_corners, resize_nearest)
)


def _half_pixel(x, size):
    """The formula of the docstring, pixel by pixel, in float64."""
    out = np.zeros((*size, x.shape[-1]))
    for i, j in np.ndindex(*size):
        y = np.clip((i + 0.5) * x.shape[0] / size[0] - 0.5, 0, x.shape[0] - 1)
        z = np.clip((j + 0.5) * x.shape[1] / size[1] - 0.5, 0, x.shape[1] - 1)
        for row, column in np.ndindex(*x.shape[:2]):
            weight = max(1 - abs(y - row), 0) * max(1 - abs(z - column), 0)
            out[i, j] += weight * x[row, column]
    return out


def test_resize_doubles_a_row():
    x = np.array([0.0, 4.0]).reshape(1, 2, 1)
    np.testing.assert_allclose(_resize(x, (1, 4))[0, :, 0], [0, 1, 3, 4])


def test_resize_does_not_blur_when_it_shrinks():
    x = np.arange(8.0).reshape(1, 8, 1) ** 2
    # New centres lie at 1.5 and 5.5: two neighbours count, not four.
    np.testing.assert_allclose(_resize(x, (1, 2))[0, :, 0], [2.5, 30.5])


@pytest.mark.parametrize("size", [(7, 3), (2, 9)])
def test_resize_is_the_half_pixel_formula(size):
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    expected = _half_pixel(x, size)
    np.testing.assert_allclose(_resize(x, size), expected, atol=1e-6)


def test_corners_stay_where_they_are():
    x = np.array([[0.0, 4.0], [8.0, 12.0]]).reshape(2, 2, 1)
    expected = np.add.outer([0, 4, 8], [0, 2, 4])
    np.testing.assert_allclose(_corners(x, (3, 3))[..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(_corners(x, (1, 2))[..., 0], [[0, 4]])
    np.testing.assert_allclose(_corners(x[:1, :1], (2, 3)), np.zeros((2, 3, 1)))


@pytest.mark.parametrize("size", [(7, 3), (2, 9)])
def test_corners_are_the_formula(size):
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    expected = np.zeros((*size, 2))
    for i, j in np.ndindex(*size):
        y, z = i * 3 / (size[0] - 1), j * 4 / (size[1] - 1)
        for row, column in np.ndindex(4, 5):
            weight = max(1 - abs(y - row), 0) * max(1 - abs(z - column), 0)
            expected[i, j] += weight * x[row, column]
    np.testing.assert_allclose(_corners(x, size), expected, atol=1e-6)
    batch = _corners(np.stack([x, -x]), size)
    np.testing.assert_allclose(batch[1], -expected, atol=1e-6)


def test_nearest_takes_the_first_pixel_of_each_cell():
    x = np.arange(48, dtype=np.int32).reshape(4, 12, 1)
    np.testing.assert_array_equal(_nearest(x, (2, 3)), x[::2, ::4])
    np.testing.assert_array_equal(
        _nearest(x[:2, :3], (3, 6))[..., 0],
        [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [12, 12, 13, 13, 14, 14]],
    )
    assert _nearest(x > 5, (2, 3)).dtype == bool


def test_pixel_centres_corners_and_outside():
    maps = np.array([[1.0, 2.0], [3.0, 8.0]], np.float32)
    points = np.array(
        [[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.0], [1.5, 0.5]], np.float32
    )
    # At the corner of the map only a quarter of the weight lies inside.
    np.testing.assert_allclose(_sample(maps, points), [1, 2, 3.5, 0.25, 0], atol=1e-6)


def test_channels_are_read_one_by_one():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(5, 7, 3)).astype(np.float32)
    points = rng.uniform(-0.2, 1.2, (40, 2)).astype(np.float32)
    found = _channels(maps, points)
    for channel in range(3):
        expected = _sample(maps[..., channel], points)
        np.testing.assert_allclose(found[:, channel], expected, atol=1e-6)


def test_the_gradient_of_a_pixel_is_its_weight():
    points = np.array([[0.3, 0.6], [0.9, 0.1]], np.float32)
    maps = np.zeros((2, 4), np.float32)
    gradient = compiled(jax.grad(lambda maps, points: sample(maps, points).sum()))
    expected = np.zeros((2, 4))
    for x, y in points:
        rows = np.maximum(1 - np.abs(2 * y - 0.5 - np.arange(2)), 0)
        columns = np.maximum(1 - np.abs(4 * x - 0.5 - np.arange(4)), 0)
        expected += np.outer(rows, columns)
    np.testing.assert_allclose(gradient(maps, points), expected, atol=1e-6)


def test_points_need_two_coordinates():
    with pytest.raises(TypeCheckError, match="parameter .points"):
        _sample(np.zeros((2, 2)), np.zeros((3, 3)))
