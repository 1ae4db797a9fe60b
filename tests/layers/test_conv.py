import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.layers.conv import Conv


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2), (7, 2)])
def test_pads_all_sides_alike(kernel, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 8, 2)).astype(np.float32)
    layer = Conv(3, kernel, stride, use_bias=True)
    ours, variables = layer.init_with_output(jax.random.key(0), jnp.asarray(x))
    weights = np.asarray(variables["params"]["kernel"])
    pad = kernel // 2
    wide = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    expected = np.zeros((6 // stride, 8 // stride, 3))
    for row, column in np.ndindex(*expected.shape[:2]):
        top, left = row * stride, column * stride
        patch = wide[top : top + kernel, left : left + kernel]
        expected[row, column] = np.einsum("yxc,yxcd->d", patch, weights)
    np.testing.assert_allclose(ours[0], expected, atol=1e-4)


def test_frozen_norm_makes_constants_and_group_norm_parameters():
    x = jnp.ones((1, 2, 2, 4))
    frozen = Conv(8, 1, norm="frozen_batch").init(jax.random.key(0), x)
    assert set(frozen["params"]) == {"kernel"}
    assert set(frozen["constants"]["norm"]) == {"scale", "bias", "mean", "var"}
    group = Conv(8, 1, norm="group").init(jax.random.key(0), x)
    assert set(group) == {"params"}
    assert set(group["params"]) == {"kernel", "norm"}
