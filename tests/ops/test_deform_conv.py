import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import load
from tests.golden.operators import deform_conv_results
from vis_jax.ops.deform_conv import deform_conv

convolve = compiled(deform_conv, static_argnames=("stride", "padding", "dilation"))


def test_without_offsets_it_is_a_convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 9, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 6)).astype(np.float32)  # two groups
    ours = convolve(
        x,
        kernel,
        np.zeros((3, 4, 1, 3, 3, 2)),
        modulation=None,
        stride=2,
        padding=1,
        dilation=2,
    )

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x[None],
            kernel,
            (2, 2),
            ((1, 1), (1, 1)),
            rhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
            precision=jax.lax.Precision.HIGHEST,
        )[0]

    np.testing.assert_allclose(ours, compiled(plain)(x, kernel), atol=1e-5)


def test_an_offset_moves_a_tap_and_a_modulation_weighs_it():
    rows, columns = np.mgrid[:4, :5].astype(np.float32)
    x = np.stack([rows, columns], axis=-1)  # the value of a cell is where it lies
    offsets = np.zeros((4, 5, 2, 1, 1, 2), np.float32)
    offsets[..., 0, 0, 0, :] = [0.5, 0.25]  # of the channel with the rows
    offsets[..., 1, 0, 0, :] = [-1.0, 0.75]  # .. and of that with the columns
    modulation = np.ones((4, 5, 2, 1, 1), np.float32)
    modulation[..., 1, :, :] = 2
    ours = convolve(
        x,
        np.eye(2, dtype=np.float32)[None, None],
        offsets,
        modulation=modulation,
        stride=1,
        padding=0,
        dilation=1,
    )
    inside = np.s_[1:3, :4]
    np.testing.assert_allclose(ours[inside][..., 0], rows[inside] + 0.5, atol=1e-6)
    moved = 2 * (columns[inside] + 0.75)
    np.testing.assert_allclose(ours[inside][..., 1], moved, atol=1e-6)
    # One row above the map is zero.
    assert (ours[0, :, 1] == 0).all()


def test_matches_stored_outputs():
    case = load("ops")
    results = deform_conv_results(case)
    assert len(results) == 5
    for name, values in results.items():
        case.check(name, values)


@pytest.mark.parametrize(
    ("kernel", "offsets", "message"),
    [
        ((3, 3, 4, 2), (4, 5, 1, 3, 3, 2), r"expected .* \(2, 3\), got \(4, 5\)"),
        ((3, 3, 3, 2), (2, 3, 1, 3, 3, 2), "groups of 3"),
        ((3, 3, 4, 2), (2, 3, 3, 3, 3, 2), "3 groups of offsets"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(kernel, offsets, message):
    run = functools.partial(convolve, modulation=None, stride=1, padding=0, dilation=1)
    with pytest.raises(ValueError, match=message):
        run(np.zeros((4, 5, 4)), np.zeros(kernel), np.zeros(offsets))
