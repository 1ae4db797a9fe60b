import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.mask_head import MaskHead, Upsample, merge_masks, of_label

_of_label = compiled(of_label)


def test_upsampling_gives_every_cell_four_places():
    x = np.arange(4.0).reshape(1, 2, 2, 1) + 1
    kernel = np.array([[1.0, 10], [100, 1000]]).reshape(1, 2, 2, 1)
    variables = {"params": {"kernel": kernel, "bias": np.ones(1)}}
    out = compiled(Upsample(1, jnp.float32).apply)(variables, x)
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
    logits = np.arange(2 * 3.0).reshape(2, 1, 1, 3)
    masks = _of_label(logits, np.array([2, 0]))
    np.testing.assert_array_equal(masks.ravel(), [2, 3])
    padding = _of_label(logits, np.array([3, 3]))
    np.testing.assert_array_equal(padding.ravel(), [2, 5])


def test_masks_of_several_heads_are_averaged_as_probabilities():
    logits = [np.full((1, 2, 1, 1, 3), x, np.float32) for x in (0.0, 8.0, -2.0)]
    logits[1][0, 0, ..., 1] = -8  # another class
    merged = compiled(merge_masks)(tuple(logits), np.array([[2, 3]]))
    expected = np.mean([1 / (1 + np.exp(-x)) for x in (0.0, 8.0, -2.0)])
    np.testing.assert_allclose(merged.ravel(), [expected] * 2, rtol=1e-6)
