import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from vis_jax.layers.mlp import DropPath


def test_drops_whole_samples_and_scales_the_rest():
    x = np.ones((200, 2, 3))
    rngs = {"drop_path": jax.random.key(0)}
    apply = compiled(lambda x, rngs: DropPath(0.25).apply({}, x, True, rngs=rngs))
    y = apply(x, rngs)
    values = y.reshape(200, -1)
    assert (values == values[:, :1]).all()
    np.testing.assert_allclose(np.unique(values), [0, 4 / 3], rtol=1e-6)
    assert abs(values.mean() - 1) < 0.1


def test_does_nothing_at_test_time_or_at_rate_zero():
    x = jnp.ones((4, 2))
    np.testing.assert_array_equal(DropPath(0.5).apply({}, x, False), x)
    np.testing.assert_array_equal(DropPath(0.0).apply({}, x, True), x)


def test_drops_tokens_of_all_samples_alike():
    x = np.ones((2, 20, 30, 3))
    rngs = {"drop_path": jax.random.key(0)}
    drop = DropPath(0.25, axes=(1, 2))
    y = compiled(lambda x, rngs: drop.apply({}, x, True, rngs=rngs))(x, rngs)
    assert (y == y[:1, :, :, :1]).all()
    kept = y[0, :, :, 0] > 0
    assert abs(kept.mean() - 0.75) < 0.05
    assert kept.any(axis=0).all() and kept.any(axis=1).all()
