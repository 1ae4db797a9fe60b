import jax
import numpy as np
import pytest

from tests.association.literal_propagation import bilinear, conv
from tests.compiled import compiled
from vis_jax.layers.temporal_sampling import TemporalSampling, similarity_weights

SIZE, CHANNELS = (5, 6), 4

sample = compiled(TemporalSampling().apply)
weights_of = compiled(similarity_weights)


def _inputs(frames=2):
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(*SIZE, CHANNELS)).astype(np.float32)
    support = rng.normal(size=(frames, *SIZE, CHANNELS)).astype(np.float32)
    return centre, support, np.ones(frames, bool)


@pytest.fixture(scope="module")
def params():
    """Values unlike those of a fresh block: offsets of about a cell, an open gate."""
    shapes = jax.eval_shape(TemporalSampling().init, jax.random.key(0), *_inputs())
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.4 + 0.1).astype(np.float32),
        shapes["params"],
    )


def _deform(x, kernel, offsets):
    """A deformable convolution by its definition."""
    result = np.zeros((*x.shape[:2], kernel.shape[3]))
    for i, j, row, column in np.ndindex(*x.shape[:2], 3, 3):
        dy, dx = offsets[i, j, 2 * (3 * row + column) :][:2]
        read = bilinear(x, i - 1 + row + dy, j - 1 + column + dx)
        result[i, j] += read @ kernel[row, column]
    return result


def _sampled(params, centre, frame):
    """Output of the fourth deformable convolution for one frame."""
    x = np.concatenate([centre, frame], axis=-1)
    for number in (1, 2, 3):
        offsets = _offsets(params[f"offset{number}"], x)
        x = np.maximum(_deform(x, params[f"kernel{number}"], offsets), 0)
    return _deform(frame, params["kernel4"], _offsets(params["offset4"], x))


def _offsets(layer, x):
    return conv(x, layer["kernel"]) + layer["bias"]


def _embed(params, x):
    for number in (1, 2, 3):
        layer = params[f"similarity{number}"]
        x = conv(x, layer["kernel"]) + layer["bias"]
        x = np.maximum(x, 0) if number < 3 else x
    return x


def test_matches_the_definition(params):
    centre, support, valid = _inputs()
    ours = sample({"params": params}, centre, support, valid)
    double = jax.tree.map(lambda x: x.astype(np.float64), params)
    frames = [x.astype(np.float64) for x in (centre, *support)]
    sampled = [_sampled(double, frames[0], frame) for frame in frames]
    embeds = [_embed(double, x) for x in sampled]
    found = np.zeros_like(frames[0])
    for at in np.ndindex(*SIZE):
        first = embeds[0][at]
        powers = [
            np.exp(first @ e[at] / np.linalg.norm(first) / np.linalg.norm(e[at]))
            for e in embeds
        ]
        for power, x in zip(powers, sampled, strict=True):
            found[at] += power / sum(powers) * x[at]
    expected = frames[0] + double["gate"] * (found - frames[0])
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-4)


def test_a_fresh_block_changes_nothing_and_an_open_gate_averages():
    centre, support, valid = _inputs()
    fresh = compiled(TemporalSampling().init)(jax.random.key(0), centre, support, valid)
    assert (sample(fresh, centre, support, valid) == centre).all()
    # Equal frames: nothing moves, and weights that sum to 1 leave them as they are.
    gate = fresh["params"] | {"gate": np.float32(1)}
    same = np.stack([centre, centre])
    found = sample({"params": gate}, centre, same, valid)
    np.testing.assert_allclose(found, centre, atol=1e-6)
    assert np.abs(sample({"params": gate}, centre, support, valid) - centre).max() > 0.1


def test_frames_that_are_not_valid_have_no_part(params):
    centre, support, _ = _inputs()
    variables = {"params": params}
    ours = sample(variables, centre, support, np.array([True, False]))
    changed = np.stack([support[0], 9 * support[1]])
    other = sample(variables, centre, changed, np.array([True, False]))
    np.testing.assert_allclose(ours, other, atol=1e-6)


def test_weights_are_those_of_cosines():
    rng = np.random.default_rng(2)
    embeds = rng.normal(size=(4, 3, 5, 6)).astype(np.float32)
    embeds[1] = 3 * embeds[0]  # as similar as can be
    embeds[3, 0, 0] = 0
    weights = weights_of(embeds, np.array([True, True, True, False]))
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-5)
    assert (weights[2] < weights[0]).all() and (weights[2] > 0).all()
    assert (weights[3] == 0).all()
