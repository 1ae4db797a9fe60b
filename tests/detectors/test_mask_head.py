import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.detectors.mask_head import MaskHead, Upsample, of_label


def test_upsampling_gives_every_cell_four_places():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1) + 1
    kernel = jnp.array([[1.0, 10], [100, 1000]]).reshape(1, 2, 2, 1)
    variables = {"params": {"kernel": kernel, "bias": jnp.ones(1)}}
    out = Upsample(1, jnp.float32).apply(variables, x)
    expected = np.kron(x[0, ..., 0], kernel[0, ..., 0]) + 1
    np.testing.assert_array_equal(out[0, ..., 0], expected)


def test_shapes_and_dtype():
    head = MaskHead(num_classes=5, dim=8, convs=4, dtype=jnp.bfloat16)
    pooled = jax.ShapeDtypeStruct((3, 14, 14, 4), jnp.bfloat16)
    out, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), pooled)
    assert out.shape == (3, 28, 28, 5)
    assert out.dtype == jnp.float32
    assert set(variables["params"]) == {
        *(f"conv{i}" for i in range(1, 5)),
        "upsample",
        "mask_logits",
    }


def test_mask_of_the_label():
    logits = jnp.arange(2 * 3.0).reshape(2, 1, 1, 3)
    masks = of_label(logits, jnp.array([2, 0], jnp.int32))
    np.testing.assert_array_equal(masks.ravel(), [2, 3])
    padding = of_label(logits, jnp.array([3, 3], jnp.int32))
    np.testing.assert_array_equal(padding.ravel(), [2, 5])
