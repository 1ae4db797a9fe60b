import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.backbones.vit import Settings, ViT, build
from vis_jax.converters.vit import antialiased_cubic
from vis_jax.layers.upscale import Upscale
from vis_jax.ops.rotary import resize_table, rotary_positions, rotate_patches
from vis_jax.settings import read_settings

_SIZES = dict(variant="thin", dim=16, depth=2, heads=2, patch=8, registers=2)


@pytest.mark.parametrize(
    ("variant", "form", "millions"),
    [
        ("small", "dinov2", 22.215),
        ("base", "dinov2", 86.898),
        ("large", "dinov2", 304.792),
        ("large", "dinov3", 303.129),
    ],
)
def test_has_as_many_parameters_as_published(variant, form, millions):
    model = ViT(variant, form)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(model.init, jax.random.key(0), images)
    count = sum(x.size for x in jax.tree.leaves(found))
    assert count / 1e6 == pytest.approx(millions, abs=6e-4)


def test_sizes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="heads: .* shares 384 channels .* got 5"):
        read_settings(Settings, dict(variant="small", heads=5))
    made = build(read_settings(Settings, _SIZES), jnp.bfloat16)
    assert (made.sizes, made.prefix, made.grid(31, 17)) == ((16, 2, 2), 3, (3, 2))


@pytest.mark.parametrize(("form", "epsilon"), [("dinov2", 1e-6), ("dinov3", 1e-5)])
def test_norms_have_the_epsilon_of_their_form(form, epsilon):
    model = ViT(form=form, **_SIZES)
    x = np.float32([[1, -1] * 8])[None] * 1e-5**0.5  # variance 1e-5

    @compiled
    def normed(key, x):
        variables = model.init(key, jnp.zeros((1, 8, 8, 3)))
        return model.apply(variables, x, method=lambda model, x: model.norm(x))

    expected = np.sign(x) * (1e-5 / (1e-5 + epsilon)) ** 0.5
    np.testing.assert_allclose(normed(jax.random.key(0), x), expected, rtol=1e-4)


def test_rotary_positions_depend_on_differences_and_leave_the_front():
    """Logits of two patches are the same wherever on the grid they lie."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 8)).astype(np.float32)
    height, width = 4, 6
    count = height * width + 3
    tokens = (np.broadcast_to(x, (1, count, 1, 8)) for x in (q, k))

    @compiled
    def both(q, k):
        rotary = rotary_positions(height, width, 8)
        return rotate_patches(q, rotary), rotate_patches(k, rotary)

    turned_q, turned_k = both(*tokens)
    np.testing.assert_array_equal(turned_q[0, :3, 0], np.stack([q] * 3))
    at = turned_q[0, 3:, 0].reshape(height, width, 8)
    to = turned_k[0, 3:, 0].reshape(height, width, 8)
    logits = np.einsum("yxc,vuc->yxvu", at, to)
    np.testing.assert_allclose(logits[0, 0, 1, 2], logits[2, 3, 3, 5], atol=1e-5)
    assert abs(logits[0, 0, 1, 2] - logits[0, 0, 2, 1]) > 1e-3
    # Rotation by 2 pi y f for the first of two frequencies, 1 and 100^(-1/2).
    angle = 2 * np.pi * (2 * 0.5 / height - 1)
    expected = q[0] * np.cos(angle) - q[4] * np.sin(angle)
    np.testing.assert_allclose(at[0, 0, 0], expected, atol=1e-5)
    scaled = rotary_positions(height, width, 8, scale=jnp.float32(1.5))
    np.testing.assert_allclose(scaled.cos[0, 0], np.cos(1.5 * angle), atol=1e-5)


def test_a_table_of_positions_keeps_its_own_grid_and_planes():
    table = np.random.default_rng(0).normal(size=(5, 5, 3)).astype(np.float32)
    resized = compiled(resize_table, static_argnums=1)
    np.testing.assert_array_equal(resized(table, (5, 5)), table)
    rows = np.arange(16, dtype=np.float32)
    plane = np.broadcast_to(rows[:, None, None], (16, 16, 1))
    small = resized(plane, (8, 8))
    # Away from the border, means of neighbours: .., 6.5, 8.5, ..
    np.testing.assert_allclose(small[3:5, 3:5, 0], [[6.5] * 2, [8.5] * 2], rtol=1e-5)


def test_dinov2s_own_table_is_resized_as_by_its_authors():
    """37 x 37 to the 4 x 6 patches of 56 x 84 pixels, alone or with padding around."""
    table = np.random.default_rng(0).normal(size=(37, 37, 2)).astype(np.float32)

    @compiled
    def both(table, content):
        return resize_table(table, (4, 6)), resize_table(table, (6, 8), content)

    found, padded = both(table, np.int32([4, 6]))
    by_rows, by_columns = antialiased_cubic(37, 4), antialiased_cubic(37, 6)
    expected = np.einsum("yi,xj,ijc->yxc", by_rows, by_columns, table)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(padded[:4, :6], expected, atol=1e-5)
    assert not padded[4:].any() and not padded[:, 6:].any()


def test_upscaling_is_what_its_loops_say():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 3, 4)).astype(np.float32)
    model = Upscale()

    @compiled
    def run(key, x):
        variables = model.init(key, x)
        return variables["params"], model.apply(variables, x)

    params, found = run(jax.random.key(0), x)
    wide = np.zeros((1, 4, 6, 4))
    for i, j, a, b in np.ndindex(2, 3, 2, 2):
        kernel = params["enlarge_kernel"][:, a, b]
        wide[0, 2 * i + a, 2 * j + b] = x[0, i, j] @ kernel + params["enlarge_bias"]
    wide = np.asarray(jax.nn.gelu(wide.astype(np.float32), approximate=False))
    smooth = np.zeros_like(wide)
    for y, x_, dy, dx in np.ndindex(4, 6, 3, 3):
        row, column = y + dy - 1, x_ + dx - 1
        if 0 <= row < 4 and 0 <= column < 6:
            tap = params["smooth_kernel"][dy, dx, 0]
            smooth[0, y, x_] += wide[0, row, column] * tap
    centred = smooth - smooth.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-4)
