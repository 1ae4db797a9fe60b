import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.pixel_decoder import reference_points
from vis_jax.layers.deform import MSDeformAttention

SHAPES = ((2, 3), (4, 6))


def test_starts_as_the_mean_of_points_in_eight_directions():
    layer = MSDeformAttention(16, heads=8, levels=2, points=2)
    tokens = np.ones((1, 30, 16))
    references = reference_points(SHAPES)
    init = functools.partial(layer.init_with_output, shapes=SHAPES)
    out, variables = compiled(init)(jax.random.key(0), tokens, tokens, references)
    assert out.shape == (1, 30, 16)
    params = variables["params"]
    bias = np.asarray(params["sampling_offsets"]["bias"]).reshape(8, 2, 2, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    np.testing.assert_allclose(bias[:, 1, 0], directions, atol=1e-6)
    np.testing.assert_allclose(bias[:, 0, 1], 2 * np.array(directions), atol=1e-6)
    for name in ("sampling_offsets", "attention_weights"):
        assert not np.any(params[name]["kernel"])
    assert not np.any(params["attention_weights"]["bias"])


def test_heads_that_do_not_divide_are_an_error():
    layer = MSDeformAttention(18, heads=4, levels=2, points=2)
    tokens = jax.ShapeDtypeStruct((1, 30, 18), jnp.float32)
    init = functools.partial(layer.init, shapes=SHAPES)
    with pytest.raises(ValueError, match="a multiple of 4 heads, got 18"):
        jax.eval_shape(
            init, jax.random.key(0), tokens, tokens, reference_points(SHAPES)
        )


def test_reference_points_are_pixel_centres():
    points = np.asarray(reference_points(((1, 2), (2, 1))))
    expected = [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]
    np.testing.assert_allclose(points, expected)
