import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.backbones.normalize import normalize

RED = jnp.tile(jnp.array([255, 0, 0], jnp.uint8), (1, 4, 6, 1))


def test_padding_has_the_mean_colour():
    out = np.asarray(normalize(RED, jnp.array([2, 5], jnp.int32), style="torch"))
    np.testing.assert_allclose(
        out[0, 1, 4],
        [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375],
        rtol=1e-5,
    )
    assert not out[0, 2:].any()
    assert not out[0, :, 5:].any()


def test_caffe_weights_see_blue_first_and_undivided():
    out = np.asarray(normalize(RED, jnp.array([4, 6], jnp.int32), style="caffe"))
    np.testing.assert_allclose(out[0, 0, 0], [-103.53, -116.28, 131.325], rtol=1e-5)


def test_iai_has_another_mean_and_spread():
    out = np.asarray(normalize(RED, jnp.array([4, 6], jnp.int32), style="vgg"))
    np.testing.assert_allclose(
        out[0, 0, 0],
        [(255 - 123.68) / 58.393, -116.779 / 57.12, -103.939 / 57.375],
        rtol=1e-6,
    )


def test_an_unknown_style_is_an_error():
    message = "expected one of 'torch', 'caffe', 'vgg', got 'tf'"
    with pytest.raises(ValueError, match=message):
        normalize(RED, jnp.array([4, 6], jnp.int32), style="tf")
