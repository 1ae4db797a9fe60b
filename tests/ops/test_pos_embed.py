import numpy as np

from tests.compiled import compiled
from vis_jax.ops import pos_embed

sine_1d = compiled(pos_embed.sine_1d, static_argnums=(0, 1))
sine_2d = compiled(pos_embed.sine_2d, static_argnums=(0, 1, 2))
from_zero = compiled(pos_embed.sine_2d_from_zero, static_argnums=(0, 1, 2))


def _literal(length, dim, extent):
    out = np.zeros((length, dim))
    for i, j in np.ndindex(length, dim):
        angle = 2 * np.pi * (i + 1) / (extent + 1e-6) / 10_000 ** (2 * (j // 2) / dim)
        out[i, j] = np.sin(angle) if j % 2 == 0 else np.cos(angle)
    return out


def test_the_last_position_is_a_full_turn():
    found = sine_1d(4, 2)
    np.testing.assert_allclose(found[0], [1, 0], atol=1e-5)
    np.testing.assert_allclose(found[3], [0, 1], atol=1e-5)


def test_sine_1d_is_the_formula():
    np.testing.assert_allclose(sine_1d(5, 8), _literal(5, 8, 5), atol=1e-5)


def test_extents_scale_to_what_is_real():
    found = sine_1d(4, 6, np.array([[4.0], [3.0]], np.float32))
    assert found.shape == (2, 1, 4, 6)
    np.testing.assert_allclose(found[0, 0], sine_1d(4, 6), atol=1e-6)
    np.testing.assert_allclose(found[1, 0, :3], sine_1d(3, 6), atol=1e-5)


def test_rows_fill_the_first_half_and_columns_the_second():
    found = sine_2d(3, 4, 8)
    rows, columns = _literal(3, 4, 3), _literal(4, 4, 4)
    for i, j in np.ndindex(3, 4):
        expected = np.concatenate([rows[i], columns[j]])
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


def test_angles_from_zero_are_a_full_turn_at_the_last_row():
    found = from_zero(12, 5, 256)
    np.testing.assert_allclose(
        found[:4, 3, 0], [0, 0.54064, 0.90963, 0.98982], atol=1e-5
    )
    rows = 2 * np.pi * np.arange(12) / 11 / 10_000 ** (2 / 128)
    np.testing.assert_allclose(found[:, 2, 3], np.cos(rows), atol=1e-4)
    columns = 2 * np.pi * np.arange(5) / 4
    np.testing.assert_allclose(found[7, :, 128], np.sin(columns), atol=1e-4)


def test_angles_from_zero_of_a_single_row():
    found = from_zero(1, 2, 8)
    np.testing.assert_array_equal(found[0, :, :4], [[0, 1, 0, 1]] * 2)
