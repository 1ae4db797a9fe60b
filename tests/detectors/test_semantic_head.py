import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.semantic_head import (
    IGNORED,
    SemanticHead,
    semantic_labels,
    semantic_loss,
)

loss = compiled(semantic_loss)
labels_of = compiled(semantic_labels, static_argnames="num_classes")


def test_the_loss_is_the_mean_over_cells_that_count():
    probs = np.array([[[[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]]]], np.float32)
    labels = np.array([[[0, 1, IGNORED]]], np.int32)
    expected = -(np.log(0.5) + np.log(0.8)) / 2
    np.testing.assert_allclose(loss(np.log(probs), labels), expected, rtol=1e-6)


def test_ignored_cells_have_no_gradient():
    logits = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    labels = np.full((2, 2, 3), IGNORED, np.int32)
    labels[0, 1, 2] = 3
    gradient = compiled(jax.grad(semantic_loss))(logits, labels).copy()
    assert np.abs(gradient[0, 1, 2]).max() > 0
    gradient[0, 1, 2] = 0
    assert not gradient.any()
    assert loss(logits, np.full_like(labels, IGNORED)) == 0


def test_smaller_objects_lie_on_top_and_padding_is_ignored():
    masks = np.zeros((3, 32, 48), bool)
    masks[0, 8:, :16] = True  # the large one comes first
    masks[1, 8:16, :16] = True
    masks[2] = True  # padding
    found = labels_of(
        masks,
        np.array([4, 2, 0], np.int32),
        np.array([True, True, False]),
        size=np.array([24, 40], np.int32),
        num_classes=5,
    )
    outside = IGNORED
    np.testing.assert_array_equal(
        found,
        [
            [5, 5, 5, 5, 5, outside],
            [2, 2, 5, 5, 5, outside],
            [4, 4, 5, 5, 5, outside],
            [outside] * 6,
        ],
    )


def test_cells_are_those_of_the_second_level_in_the_dtype_asked_for():
    head = SemanticHead(5, dim=6, convs=2, channels=8, dtype=jnp.bfloat16)
    levels = tuple(
        jax.ShapeDtypeStruct((2, 3 * side, 5 * side, 8), jnp.bfloat16)
        for side in (8, 4, 2, 1)
    )
    levels = (*levels, jax.ShapeDtypeStruct((2, 2, 3, 8), jnp.bfloat16))
    (logits, embedding), variables = jax.eval_shape(
        head.init_with_output, jax.random.key(0), levels
    )
    assert (logits.shape, logits.dtype) == ((2, 12, 20, 5), jnp.float32)
    assert (embedding.shape, embedding.dtype) == ((2, 12, 20, 8), jnp.bfloat16)
    assert set(variables["params"]) == {
        *(f"lateral{level}" for level in range(2, 7)),
        "conv1",
        "conv2",
        "class_logits",
        "embedding",
    }
