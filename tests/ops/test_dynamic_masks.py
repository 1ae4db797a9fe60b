import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import FOLDER
from vis_jax.ops.dynamic_masks import dynamic_masks, num_params

masks = compiled(dynamic_masks, static_argnames="stride")


def one_by_one(params, features, locations, strides, stride):
    """The definition, cell by cell, in float64."""
    height, width, channels = features.shape
    out = np.zeros((len(params), height, width))
    ends = np.cumsum([8 * (channels + 2), 64, 8, 8, 8])
    for n, vector in enumerate(params.astype(np.float64)):
        w1, w2, w3, b1, b2, b3 = np.split(vector, ends)
        for i, j in np.ndindex(height, width):
            cell = np.array([stride * j + stride // 2, stride * i + stride // 2])
            place = (locations[n] - cell) / (8 * strides[n])
            x = np.concatenate([place, features[i, j]])
            x = np.maximum(w1.reshape(8, channels + 2) @ x + b1, 0)
            x = np.maximum(w2.reshape(8, 8) @ x + b2, 0)
            out[n, i, j] = w3 @ x + b3[0]
    return out


def example(channels=8):
    rng = np.random.default_rng(0)
    params = rng.normal(size=(3, num_params(channels))).astype(np.float32)
    features = rng.normal(size=(5, 7, channels)).astype(np.float32)
    locations = rng.uniform(0, 56, (3, 2)).astype(np.float32)
    return params, features, locations, np.array([8, 16, 128], np.int32)


def test_a_filter_of_condinst_has_169_numbers():
    assert num_params(8) == 169


@pytest.mark.parametrize(("channels", "stride"), [(8, 8), (3, 4)])
def test_the_definition(channels, stride):
    arguments = example(channels)
    expected = one_by_one(*arguments, stride)
    found = masks(*arguments, stride=stride)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_equal_to_condinst():
    """Stored filters, inputs at every second cell, and logits of the official head."""
    with np.load(FOLDER / "shared_ops.npz") as stored:
        case = {
            name.rpartition("/")[2]: stored[name]
            for name in stored.files
            if name.startswith("iai_condinst_r50/dynamic_mask/0/")
        }
    parts = ("weight0", "weight1", "weight2", "bias0", "bias1", "bias2")
    params = np.concatenate([case[x].reshape(10, -1) for x in parts], axis=1)
    inputs = case["input"].reshape(10, 10, 6, 10)  # instance, channel, row, column
    features = np.zeros((12, 20, 8), np.float32)
    features[::2, ::2] = np.moveaxis(inputs[0, 2:], 0, -1)
    # 16 pixels between two stored columns, 4 from the border to the first.
    strides = np.rint(2 / (inputs[:, 0, 0, 0] - inputs[:, 0, 0, 1])).astype(np.int32)
    locations = inputs[:, :2, 0, 0] * 8 * strides[:, None].astype(np.float32) + 4
    found = masks(params, features, locations, strides, stride=8)[:, ::2, ::2]
    np.testing.assert_allclose(found, case["logits"][0, :, ::2, ::2], atol=1e-4)
    assert set(strides) == {8, 16}


def test_the_position_relative_to_a_cell():
    """A filter that hands on x, then one that hands on y."""
    params = np.zeros((2, 169), np.float32)
    for n in range(2):
        params[n, n] = 1.0  # first layer: output 0 reads x or y
        params[n, 80] = 1.0
        params[n, 144] = 1.0
    locations = np.array([[36.0, 20.0]] * 2, np.float32)
    features = np.full((3, 6, 8), 9.0, np.float32)
    found = masks(params, features, locations, np.array([8, 16], np.int32), stride=8)
    x = (36 - (8 * np.arange(6) + 4)) / 64
    y = (20 - (8 * np.arange(3) + 4)) / 128
    np.testing.assert_allclose(found[0], np.tile(x.clip(0), (3, 1)), atol=1e-6)
    np.testing.assert_allclose(found[1], np.tile(y.clip(0)[:, None], (1, 6)), atol=1e-6)


def test_gradients_reach_filters_and_features_of_an_instance():
    def first(*arguments):
        return dynamic_masks(*arguments, stride=8)[0].sum()

    by_params, by_features = compiled(jax.grad(first, (0, 1)))(*example())
    assert np.isfinite(by_params).all() and np.isfinite(by_features).all()
    assert (by_params[0] != 0).any() and (by_features != 0).any()
    assert (by_params[1:] == 0).all()


def test_a_filter_of_another_length_is_an_error():
    params, features, locations, strides = example()
    with pytest.raises(
        ValueError, match="expected 169 numbers for 8 channels, got 168"
    ):
        masks(params[:, 1:], features, locations, strides, stride=8)
