import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.conv import convolve


# In groups there are matrix products; without, the layout of a forward pass.
@pytest.mark.parametrize(("width", "expected"), [(2, 0), (8, 2)])
def test_the_gradient_is_chosen_by_the_platform(width, expected):
    x, kernel = np.zeros((1, 4, 4, 8), "f4"), np.zeros((3, 3, width, 8), "f4")

    def loss(x, kernel):
        return convolve(x, kernel, 1).sum()

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    on_cpu, on_tpu = (
        traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    )
    assert on_tpu.count("stablehlo.convolution") == 2
    assert on_cpu.count("stablehlo.convolution") == expected
    assert on_cpu.count("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") == expected


@pytest.mark.parametrize(
    ("side", "stride", "dilation", "size"),
    [(3, 1, 1, (4, 6)), (3, 2, 1, (5, 6)), (3, 1, 2, (5, 6)), (7, 2, 1, (6, 7))],
)
def test_the_gradient_is_that_of_xla_also_of_several_at_once(
    side, stride, dilation, size
):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, *size, 2)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 2, 3)).astype(np.float32)

    def gradients(form):
        def loss(x, kernel):
            return jnp.sin(jax.vmap(form, (0, None))(x, kernel)).sum()

        def per_map(x, kernel):
            return jax.vmap(jax.grad(loss, 1), (0, None))(x[:, None], kernel)

        def both(x, kernel):
            return jax.grad(loss, (0, 1))(x, kernel), per_map(x, kernel)

        return compiled(both)(x, kernel)

    def ours(x, kernel):
        return convolve(x, kernel, stride, dilation)

    def plain(x, kernel):
        return convolve.fun(x, kernel, stride, dilation)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients(ours), gradients(plain),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "width", "dilation", "expected"),
    [(2, 4, 1, "expected an odd side"), (3, 2, 2, "expected 1 with groups, got 2")],
)
def test_what_has_no_gradient_is_refused(side, width, dilation, expected):
    x = jax.ShapeDtypeStruct((1, 4, 4, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((side, side, width, 4), jnp.float32)
    with pytest.raises(ValueError, match=expected):
        jax.eval_shape(lambda x, kernel: convolve(x, kernel, 1, dilation), x, kernel)
