import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vis_jax.ops.bilinear import (
    hat_weights,
    resize,
    sample,
    sample_dense,
    sample_gather,
)

_dense, _gather = jax.jit(sample_dense), jax.jit(sample_gather)


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
    x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
    np.testing.assert_allclose(resize(x, (1, 4))[0, :, 0], [0, 1, 3, 4])


def test_resize_does_not_blur_when_it_shrinks():
    x = jnp.arange(8.0).reshape(1, 8, 1) ** 2
    # New centres lie at 1.5 and 5.5: two neighbours count, not four.
    np.testing.assert_allclose(resize(x, (1, 2))[0, :, 0], [2.5, 30.5])


@pytest.mark.parametrize("size", [(7, 3), (2, 9)])
def test_resize_is_the_half_pixel_formula(size):
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    expected = _half_pixel(x, size)
    np.testing.assert_allclose(resize(jnp.array(x), size), expected, atol=1e-6)


@pytest.mark.parametrize("read", ["dense", "gather"])
def test_pixel_centres_corners_and_outside(read):
    maps = np.array([[1.0, 2.0], [3.0, 8.0]], np.float32)
    points = np.array(
        [[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.0], [1.5, 0.5]], np.float32
    )
    if read == "dense":
        values = _dense(maps, points)
    else:
        values = _gather(maps[..., None], points)[:, 0]
    # At the corner of the map only a quarter of the weight lies inside.
    np.testing.assert_allclose(values, [1, 2, 3.5, 0.25, 0], atol=1e-6)


def test_dense_and_gathered_readings_agree_with_their_gradients():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(5, 7)).astype(np.float32)
    points = rng.uniform(-0.2, 1.2, (40, 2)).astype(np.float32)
    weight = rng.normal(size=40).astype(np.float32)

    def dense(maps, points):
        return jnp.sum(weight * sample_dense(maps, points))

    def gathered(maps, points):
        return jnp.sum(weight * sample_gather(maps[..., None], points)[:, 0])

    dense, gathered = (
        jax.jit(jax.value_and_grad(read))(maps, points) for read in (dense, gathered)
    )
    np.testing.assert_allclose(dense[0], gathered[0], rtol=1e-5)
    np.testing.assert_allclose(dense[1], gathered[1], atol=1e-5)


def test_sample_reads_large_and_small_maps_alike():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(64, 64)).astype(np.float32)
    points = rng.random((600, 2), np.float32)  # 600 * 64 * 64 is beyond the limit
    few = jax.jit(sample)(maps, points[:100])
    np.testing.assert_allclose(jax.jit(sample)(maps, points)[:100], few, atol=1e-5)


def test_hat_weights_sum_to_one_inside():
    weights = np.asarray(hat_weights(jnp.array([0.0, 1.25, 2.0, -0.5, -1.0]), 3))
    expected = [[1, 0, 0], [0, 0.75, 0.25], [0, 0, 1], [0.5, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(weights, expected)


def test_points_need_two_coordinates():
    with pytest.raises(TypeCheckError, match="parameter .points"):
        sample(jnp.zeros((2, 2)), jnp.zeros((3, 3)))
