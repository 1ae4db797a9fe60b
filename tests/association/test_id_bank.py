"""The ID bank, against a loop over pixels and by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association.literal_frame_memory import id_bank
from tests.compiled import compiled
from vis_jax.association.id_bank import IDBank

CHANNELS, DIM, STRIDE = 5, 3, 4
BANK = IDBank(CHANNELS, DIM, STRIDE)
run = compiled(lambda params, ids: BANK.apply({"params": params}, ids))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shape = (STRIDE + 1, STRIDE + 1, CHANNELS, DIM)
    kernel, bias = rng.normal(size=shape), rng.normal(size=DIM)
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def _ids(height, width, channels=CHANNELS + 2):
    found = np.random.default_rng(1).integers(0, channels, (2, height, width))
    return np.where(found < CHANNELS, found, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 4), (7, 9)])
def test_equals_a_loop_over_the_pixels_of_each_patch(params, height, width):
    ids = _ids(height, width)
    found = run(params, ids)
    assert found.shape == (2, -(-height // STRIDE), -(-width // STRIDE), DIM)
    weights = {f"id_bank/{name}": value.astype(float) for name, value in params.items()}
    for ours, one in zip(found, ids, strict=True):
        np.testing.assert_allclose(ours, id_bank(weights, one, STRIDE), atol=1e-5)


def test_equals_a_convolution_of_the_published_size_in_gradients_too():
    bank = IDBank(3, 2, 32)
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(33, 33, 3, 2)).astype(np.float32)
    ids = rng.integers(0, 3, (1, 64, 96)).astype(np.uint8)
    weight = rng.normal(size=(1, 2, 3, 2)).astype(np.float32)

    def ours(kernel):
        params = {"kernel": kernel, "bias": np.zeros(2, np.float32)}
        return (bank.apply({"params": params}, jnp.asarray(ids)) * weight).sum()

    def convolution(kernel):
        found = jax.lax.conv_general_dilated(
            jax.nn.one_hot(ids, 3),
            kernel,
            (32, 32),
            ((16, 16), (16, 16)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return (found * weight).sum()

    ours, theirs = (
        compiled(jax.value_and_grad(function))(kernel)
        for function in (ours, convolution)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5)


def test_a_map_without_channels_leaves_the_bias(params):
    blank = np.full((2, 8, 12), 255, np.uint8)
    found = run(params, blank)
    np.testing.assert_array_equal(found, np.broadcast_to(params["bias"], found.shape))


def test_an_object_that_moves_by_a_stride_moves_its_embedding_by_a_token(params):
    ids = np.full((2, 16, 20), CHANNELS - 1, np.uint8)
    ids[0, 5:10, 6:9] = ids[1, 9:14, 10:13] = 2
    found = run(params, ids)
    np.testing.assert_allclose(found[1, 2:, 2:4], found[0, 1:-1, 1:3], atol=1e-6)
    assert np.abs(found[0, 1, 1] - found[0, 1, 2]).max() > 0.1


def test_the_channel_of_new_objects_gets_no_gradient(params):
    new = CHANNELS - 2
    ids = _ids(8, 12)
    ids[ids == new] = 0  # never painted

    def total(kernel):
        moved = {"params": {**params, "kernel": kernel}}
        return (BANK.apply(moved, jnp.asarray(ids)) ** 2).sum()

    gradient = compiled(jax.grad(total))(params["kernel"])
    assert not gradient[:, :, new].any()
    assert np.abs(gradient).max(axis=(0, 1, 3))[[0, 1, 2, 4]].min() > 0.1
