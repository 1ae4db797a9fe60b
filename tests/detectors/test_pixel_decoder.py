import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.pixel_decoder import PixelDecoder
from vis_jax.params import flatten

SIZES = {"res2": (16, 24), "res3": (8, 12), "res4": (4, 6), "res5": (2, 3)}


def features(channels, batch=2):
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(batch, *size, channels * 2**i)).astype(np.float32)
        for i, (name, size) in enumerate(SIZES.items())
    }


def test_small_decoder_gives_three_levels_and_mask_features():
    inputs = features(8)
    model = PixelDecoder(dim=32, layers=1, heads=4, points=2, mlp_dim=48, remat=True)
    init = compiled(model.init_with_output)
    out, variables = init(jax.random.key(0), inputs)
    assert [x.shape for x in out.levels] == [
        (2, *SIZES[name], 32) for name in ("res5", "res4", "res3")
    ]
    assert out.mask_features.shape == (2, 16, 24, 32)
    # Frames do not see each other.
    swapped = jax.tree.map(lambda x: x[::-1], inputs)
    turned = compiled(model.apply)(variables, swapped)
    np.testing.assert_allclose(out.mask_features, turned.mask_features[::-1], atol=1e-5)
    gradient = compiled(
        jax.grad(lambda v, x: jnp.mean(model.apply(v, x).mask_features ** 2))
    )(variables, inputs)
    for path, leaf in flatten(gradient).items():
        assert np.isfinite(leaf).all(), path
        # Positions only steer the offsets, whose kernel starts at zero.
        assert np.any(leaf) or path == "params/level_embed", path


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_published_size(dtype):
    model = PixelDecoder(
        dim=256, layers=6, heads=8, points=4, mlp_dim=1024, dtype=dtype
    )
    shapes = jax.eval_shape(lambda: features(256, 1))
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), shapes)
    assert out.mask_features.dtype == dtype
    count = sum(leaf.size for leaf in flatten(variables).values())
    assert 5.4e6 < count < 6.1e6
