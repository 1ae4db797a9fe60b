import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers.queries import (
    ClipFeatures,
    QueryHeads,
    foreground,
    mask_logits,
    resized_features,
)
from vis_jax.ops.bilinear import resize


def test_mask_logits_are_dot_products():
    embeds = np.array([[1.0, 0], [0, 2]], np.float32)
    features = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    found = compiled(mask_logits)(embeds, features)
    np.testing.assert_array_equal(found, [[[0, 2], [4, 6]], [[2, 6], [10, 14]]])


def test_foreground_is_the_sign_of_the_resized_mask():
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(1, 2, 5, 4)).astype(np.float32)
    fine = rng.normal(size=(1, 2, 8, 12, 4)).astype(np.float32)
    levels = tuple(
        np.zeros((1, 2, *s, 4), np.float32) for s in ((1, 2), (2, 3), (4, 6))
    )

    @compiled
    def both(embeds, features):
        masks = jnp.moveaxis(mask_logits(embeds, features.mask_features), 2, -1)
        pairs = []
        for small in resized_features(features):
            logits = jnp.moveaxis(resize(masks, small.shape[2:4]), -1, 2)
            pairs.append((foreground(embeds, small), logits.reshape(1, 2, 5, -1)))
        return pairs

    for inside, logits in both(embeds, ClipFeatures(levels, fine)):
        clear = np.abs(logits) > 1e-5  # rounding may turn a sign at zero
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(inside[clear], (logits >= 0)[clear])


def test_a_logit_of_zero_is_foreground():
    inside = compiled(foreground)(np.zeros((1, 1, 2, 3)), np.ones((1, 1, 2, 2, 3)))
    assert inside.shape == (1, 1, 2, 4)
    assert inside.all()


@pytest.mark.parametrize("prior", [0.01, None])
def test_classes_start_from_the_prior(prior):
    heads = QueryHeads(8, 5, prior)
    queries = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
    init = compiled(lambda key, x: heads.init(key, x, method=heads.classify))
    bias = init(jax.random.key(0), queries)["params"]["class_embed"]["bias"]
    if prior is None:
        assert np.abs(bias).max() <= 8**-0.5
    else:
        np.testing.assert_allclose(bias, -4.59512, rtol=1e-5)


def test_heads_give_float32_from_bfloat16():
    heads = QueryHeads(8, 5, None, jnp.bfloat16)
    queries = jnp.ones((2, 3, 8), jnp.bfloat16)
    for method, channels in ((heads.classify, 5), (heads.embed, 8)):
        out, _ = jax.eval_shape(
            lambda key, x, method=method: heads.init_with_output(key, x, method=method),
            jax.random.key(0),
            queries,
        )
        assert (out.shape, out.dtype) == ((2, 3, channels), jnp.float32)
