import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import load
from tests.golden.operators import deform_conv_results
from tests.ops.literal_deform import literal_deform_conv
from vis_jax.ops.deform_conv import deform_conv

convolve = compiled(deform_conv, static_argnames=("stride", "padding", "dilation"))


@pytest.mark.parametrize(
    ("stride", "dilation", "groups"),
    [(1, 3, 1), (1, 6, 1), (1, 12, 1), (1, 1, 64), (2, 2, 2)],
)
def test_without_offsets_it_is_a_convolution(stride, dilation, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 9, 2 * groups)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 3 * groups)).astype(np.float32)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x[None],
            kernel,
            (stride, stride),
            ((dilation, dilation), (dilation, dilation)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=jax.lax.Precision.HIGHEST,
        )[0]

    expected = compiled(plain)(x, kernel)
    offsets = np.zeros((*expected.shape[:2], 1, 3, 3, 2), np.float32)
    steps = dict(stride=stride, padding=dilation, dilation=dilation)
    for modulation, share in ((None, 1.0), (np.full(offsets.shape[:-1], 0.5), 0.5)):
        weights = None if modulation is None else modulation.astype(np.float32)
        ours = convolve(x, kernel, offsets, modulation=weights, **steps)
        np.testing.assert_allclose(ours, share * expected, atol=2e-5)


def _five_by_five(kernel, offsets, modulation=None):
    """A 3x3 convolution of 0 .. 24, with offsets y, x of nine taps."""
    offsets = np.broadcast_to(
        np.reshape(offsets, (1, 1, 1, 3, 3, 2)), (5, 5, 1, 3, 3, 2)
    ).astype(np.float32)
    x = np.arange(25, dtype=np.float32).reshape(5, 5, 1)
    kernel = np.reshape(kernel, (3, 3, 1, 1)).astype(np.float32)
    steps = dict(stride=1, padding=1, dilation=1)
    return convolve(x, kernel, offsets, modulation=modulation, **steps)[..., 0]


def test_taps_that_move_by_half_a_pixel_give_the_values_of_detectron2():
    expected = [
        [30, 41.25, 48.75, 45, 28.75],
        [62.25, 81, 90, 80.25, 50.25],
        [99.75, 126, 135, 117.75, 72.75],
        [105, 131.25, 138.75, 120, 73.75],
        [71.75, 89.25, 93.75, 80.75, 49.5],
    ]
    ones, half = np.ones(9), np.full(18, 0.5)
    np.testing.assert_allclose(_five_by_five(ones, half), expected, rtol=1e-6)
    weights = np.full((5, 5, 1, 3, 3), 0.5, np.float32)
    ours = _five_by_five(ones, half, weights)
    np.testing.assert_allclose(ours, np.array(expected) / 2, rtol=1e-6)


def test_offsets_are_y_and_x_of_one_tap_after_the_other():
    image = np.arange(25.0).reshape(5, 5)
    centre = np.eye(9)[4]
    down = np.zeros(18)
    down[8] = 1.0
    expected = np.vstack([image[1:], np.zeros((1, 5))])
    np.testing.assert_allclose(_five_by_five(centre, down), expected, atol=1e-6)
    left = np.zeros(18)
    left[9] = -0.5
    before = np.hstack([np.zeros((5, 1)), image[:, :-1]])
    expected = (image + before) / 2  # what lies outside is zero
    np.testing.assert_allclose(_five_by_five(centre, left), expected, atol=1e-6)


def test_groups_of_channels_move_by_themselves_and_far_offsets_read_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 7, 4)).astype(np.float32)
    kernel = np.zeros((3, 3, 4, 4), np.float32)
    kernel[1, 1] = np.eye(4)
    offsets = np.zeros((6, 7, 2, 3, 3, 2), np.float32)
    offsets[:, :, 0] = [2, -1]
    offsets[:, :, 1] = [-3, 4]
    steps = dict(modulation=None, stride=1, padding=1, dilation=1)
    expected = np.zeros_like(x)
    expected[:4, 1:, :2] = x[2:, :6, :2]
    expected[3:, :3, 2:] = x[:3, 4:, 2:]
    np.testing.assert_allclose(
        convolve(x, kernel, offsets, **steps), expected, atol=1e-6
    )
    assert not convolve(x, kernel, offsets + 1e6, **steps).any()

    def total(*inputs):
        return deform_conv(*inputs, **steps).sum()

    gradients = compiled(jax.grad(total, (0, 1, 2)))(x, kernel, offsets + 1e6)
    assert all(np.isfinite(g).all() and not g.any() for g in gradients)


@pytest.mark.parametrize("dilation", [3, 6, 12])
def test_values_and_gradients_are_those_of_the_definition(dilation):
    rng = np.random.default_rng(dilation)
    steps = dict(stride=1, padding=dilation, dilation=dilation)
    inputs = [
        rng.normal(size=(4, 5, 4)),
        rng.normal(size=(3, 3, 2, 2)),
        # Not near whole pixels, where the gradient jumps.
        rng.integers(-3, 3, (4, 5, 2, 3, 3, 2)) + rng.uniform(0.1, 0.9),
        rng.random((4, 5, 2, 3, 3)),
    ]
    weights = rng.normal(size=(4, 5, 2))

    def loss(x, kernel, offsets, modulation):
        out = deform_conv(x, kernel, offsets, modulation=modulation, **steps)
        return (out * weights.astype(np.float32)).sum(), out

    def literal(*inputs):
        return (literal_deform_conv(*inputs, **steps) * weights).sum()

    single = [x.astype(np.float32) for x in inputs]
    run = compiled(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))
    (_, ours), gradients = run(*single)
    np.testing.assert_allclose(ours, literal_deform_conv(*inputs, **steps), atol=1e-5)
    for place, gradient in enumerate(gradients):
        step = rng.normal(size=gradient.shape) * 1e-6
        ends = [
            literal(*inputs[:place], inputs[place] + sign * step, *inputs[place + 1 :])
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / 2
        np.testing.assert_allclose((gradient * step).sum(), expected, rtol=1e-3)


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
