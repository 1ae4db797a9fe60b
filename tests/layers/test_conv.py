import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers.conv import Conv
from vis_jax.ops.conv import by_columns


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2), (7, 2)])
def test_pads_all_sides_alike(kernel, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 8, 2)).astype(np.float32)
    layer = Conv(3, kernel, stride, use_bias=True)
    ours, variables = compiled(layer.init_with_output)(jax.random.key(0), x)
    weights = variables["params"]["kernel"]
    pad = kernel // 2
    wide = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    expected = np.zeros((6 // stride, 8 // stride, 3))
    for row, column in np.ndindex(*expected.shape[:2]):
        top, left = row * stride, column * stride
        patch = wide[top : top + kernel, left : left + kernel]
        expected[row, column] = np.einsum("yxc,yxcd->d", patch, weights)
    np.testing.assert_allclose(ours[0], expected, atol=1e-4)


@pytest.mark.parametrize(("groups", "stride"), [(4, 1), (64, 2)])
def test_both_forms_of_a_grouped_convolution_agree(groups, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 2 * groups)).astype(np.float32)
    layer = Conv(groups, 3, stride, groups=groups)
    ours, variables = compiled(layer.init_with_output)(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 2, groups)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def layered(x, kernel):
        return layer.apply({"params": {"kernel": kernel}}, x)

    def columns(x, kernel):
        return by_columns(x, kernel, stride)

    cotangent = rng.normal(size=ours.shape).astype(np.float32)

    def run(form):
        def both(x, kernel):
            out, gradients = jax.vjp(form, x, kernel)
            return out, gradients(jnp.asarray(cotangent))

        return compiled(both)(x, kernel)

    expected = run(plain)
    for form in (layered, columns):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            run(form), expected,
        )  # fmt: skip


def test_frozen_norm_makes_constants_and_group_norm_parameters():
    x = jax.ShapeDtypeStruct((1, 2, 2, 4), jnp.float32)
    key = jax.random.key(0)
    frozen = jax.eval_shape(Conv(8, 1, norm="frozen_batch").init, key, x)
    assert set(frozen["params"]) == {"kernel"}
    assert set(frozen["constants"]["norm"]) == {"scale", "bias", "mean", "var"}
    batch = jax.eval_shape(Conv(8, 1, norm="batch").init, key, x)
    assert set(batch["params"]["norm"]) == {"scale", "bias"}
    assert set(batch["batch_stats"]["norm"]) == {"mean", "var"}
    group = jax.eval_shape(Conv(8, 1, norm="group").init, key, x)
    assert set(group) == {"params"}
    assert set(group["params"]) == {"kernel", "norm"}
