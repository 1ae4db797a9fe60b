"""Weights in fewer bits come back as they were rounded."""

from types import SimpleNamespace

import numpy as np
import pytest

from vis_jax.converters.narrow import narrowed, wide_shapes, widened

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 4, 5)).astype(np.float32) * [1, 2, 30, 0.1, 0]
ARRAYS = {
    "params/conv/kernel": KERNEL.astype(np.float32),
    "params/conv/bias": RNG.normal(size=5).astype(np.float32),
    "batch_stats/conv/kernel": np.ones((2, 3), np.float32) / 3,
}


def test_int8_is_within_half_a_step_of_each_output():
    pytest.importorskip("qwix")
    found = narrowed(ARRAYS, "int8")
    assert found["params/conv/kernel"].dtype == np.int8
    assert found["params/conv/kernel:scale"].shape == (1, 1, 1, 5)
    assert len(found) == len(ARRAYS) + 1
    wide = widened(found)
    largest = np.abs(KERNEL).max(axis=(0, 1, 2))
    error = np.abs(wide["params/conv/kernel"] - KERNEL).max(axis=(0, 1, 2))
    assert (error <= largest / 127 * 0.501).all() and error.max() > 0
    for name in ("params/conv/bias", "batch_stats/conv/kernel"):
        np.testing.assert_array_equal(wide[name], ARRAYS[name])


def test_scales_multiply_their_array():
    arrays = {
        "params/a/kernel": np.array([[1, -2], [3, 127]], np.int8),
        "params/a/kernel:scale": np.array([[0.5, 2]], np.float32),
        "params/b/kernel": np.ones((2, 2), np.float32),
    }
    found = widened(arrays)
    assert found.keys() == {"params/a/kernel", "params/b/kernel"}
    expected = np.array([[0.5, -4], [1.5, 254]], np.float32)
    assert found["params/a/kernel"].dtype == np.float32
    np.testing.assert_array_equal(found["params/a/kernel"], expected)
    shapes = wide_shapes(arrays)
    assert shapes["params/a/kernel"] == ((2, 2), np.dtype(np.float32))
    assert shapes.keys() == found.keys()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"x": ("int8", (3, 2))}, r"x: expected float32 \[1, 2\] as x:scale"),
        (
            {"x": ("int8", (3, 2)), "x:scale": ("float32", (1, 3))},
            r"x: expected float32 \[1, 2\] as x:scale",
        ),
        (
            {"x": ("float32", (3, 2)), "x:scale": ("float32", (1, 2))},
            "x:scale: expected scales of an int8 array, got none",
        ),
        ({"x:scale": ("float32", (1, 2))}, "expected scales of an int8 array"),
    ],
)
def test_scales_that_do_not_fit_are_named(names, expected):
    entries = {
        name: SimpleNamespace(dtype=dtype, shape=shape)
        for name, (dtype, shape) in names.items()
    }
    with pytest.raises(ValueError, match=expected):
        wide_shapes(entries)
