"""Attention to a window, against loops over queries and places in float64."""

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.ops.literal_window import look
from vis_jax.ops.local_attention import local_attention

NAMES = ("queries", "keys", "values", "relative", "value_bias")


def attend(queries, keys, values, relative, value_bias):
    return local_attention(
        queries, keys, values, relative=relative, value_bias=value_bias
    )


attention = compiled(attend)


def _draw(height, width, side, heads=2, dim=3):
    rng = np.random.default_rng(height)
    here = (height, width, heads)
    # The frame that looks and the one that is looked at have nothing in common.
    queries, keys, values = rng.normal(size=(3, *here, dim))
    relative = rng.normal(size=(*here, side * side))
    return queries, keys, values, relative, rng.normal(size=(heads, dim, side * side))


def _float32(arrays):
    return [x.astype(np.float32) for x in arrays]


@pytest.mark.parametrize(
    ("height", "width", "side"), [(20, 40, 15), (4, 6, 15), (4, 6, 3), (1, 7, 5)]
)
def test_equals_a_loop_over_the_places_of_the_window(height, width, side):
    arrays = _draw(height, width, side)
    found = attention(*_float32(arrays))
    rng = np.random.default_rng(1)
    corners = [(y, x) for y in (0, height - 1) for x in (0, width - 1)]
    inner = zip(rng.integers(0, height, 24), rng.integers(0, width, 24), strict=True)
    for y, x in (*corners, *inner):
        expected = look(*arrays, place=(y, x))
        np.testing.assert_allclose(found[y, x], expected, atol=1e-5)


def test_gradients_are_those_of_the_loop():
    arrays = _draw(4, 6, 5)
    rng = np.random.default_rng(2)
    weight = rng.normal(size=arrays[0].shape)

    def literal(*arrays):
        places = np.ndindex(4, 6)
        return sum(
            (look(*arrays, place=place) * weight[place]).sum() for place in places
        )

    def ours(*arrays):
        return (attend(*arrays) * weight.astype(np.float32)).sum()

    gradients = compiled(jax.grad(ours, range(len(NAMES))))(*_float32(arrays))
    for index, name in enumerate(NAMES):
        direction = rng.normal(size=arrays[index].shape)
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(arrays)
            moved[index] = arrays[index] + step * direction
            ends.append(literal(*moved))
        slope = (ends[0] - ends[1]) / 2e-5
        found = (gradients[index] * direction).sum()
        np.testing.assert_allclose(found, slope, rtol=1e-4, err_msg=name)


def test_what_lies_outside_the_window_has_no_say():
    queries, keys, values, *terms = _float32(_draw(4, 9, 5))
    before = attention(queries, keys, values, *terms)
    keys[:, 6:], values[:, 6:] = 50.0, 50.0
    after = attention(queries, keys, values, *terms)
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4:] - before[:, 4:]).min(axis=(-2, -1)).max() > 1
