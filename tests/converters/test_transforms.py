import numpy as np
import pytest

from vis_jax.converters.transforms import (
    first_rows,
    kernel,
    position_table,
    rows,
    same,
)


def test_kernel_moves_outputs_last():
    conv = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert kernel(conv, (5, 7, 3, 2))[4, 6, 2, 1] == conv[1, 2, 4, 6]
    linear = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(kernel(linear, (3, 4)), linear.T)
    heads = kernel(linear, (3, 2, 2))
    assert heads[1, 1, 0] == linear[2, 1]  # output 2 = head 1, channel 0


@pytest.mark.parametrize("shape", [(2, 6), (4, 3), (12,), (3, 2, 3)])
def test_axes_are_split_but_never_merged(shape):
    assert kernel(np.zeros((4, 3)), shape).shape == (3, 4)


def test_rows_takes_a_third():
    fused = np.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(rows(1, 3, kernel)(fused, (2, 2)), fused[2:4].T)
    np.testing.assert_array_equal(rows(2, 3, same)(np.arange(6), (2,)), [4, 5])


def test_first_rows_cuts_and_never_adds():
    assert first_rows(np.zeros((200, 4)), (100, 4)).shape == (100, 4)
    assert first_rows(np.zeros((100, 4)), (200, 4)).shape == (100, 4)


def test_position_table_of_the_same_window_is_untouched():
    table = np.random.default_rng(0).random((49, 3))
    assert position_table(table, (49, 3)) is table


def test_position_table_is_resized_symmetrically_and_keeps_slopes():
    y, x = np.mgrid[-6:7, -6:7]
    table = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    out = position_table(table, (23 * 23, 2)).reshape(23, 23, 2)
    np.testing.assert_allclose(out, -out[::-1, ::-1], atol=1e-6)
    # Away from the clamped edges a cubic resize keeps a ramp: 13 pixels become 23.
    np.testing.assert_allclose(out[11, 5:18, 0], np.arange(-6, 7) * 13 / 23, atol=0.05)
    assert position_table(table, (23 * 23, 3)) is table  # other heads: a misfit
