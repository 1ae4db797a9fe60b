import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.depthwise import depthwise


def grouped(x, kernel):
    """The same by a convolution with as many groups as channels."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "dtype", "atol"),
    [(3, jnp.float32, 1e-5), (5, jnp.float32, 1e-5), (3, jnp.bfloat16, 0.2)],
)
def test_values_and_gradients_are_those_of_a_grouped_convolution(side, dtype, atol):
    rng = np.random.default_rng(side)
    x, g = rng.normal(size=(2, 2, 6, 4, 3)).astype(dtype)
    kernel = rng.normal(size=(side, side, 1, 3)).astype(dtype)

    @compiled
    def run(x, kernel, g):
        def both(form):
            out, pull = jax.vjp(form, x, kernel)
            return out, *pull(g)

        return both(depthwise), both(grouped)

    found, expected = run(x, kernel, g)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), np.asarray(theirs, np.float32), atol=atol
        )
