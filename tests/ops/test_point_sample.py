import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.bilinear import sample, sample_channels
from vis_jax.ops.sampling import draw_sizes, uncertain_points

_choose = compiled(uncertain_points)
_sample = compiled(sample)


@pytest.mark.parametrize(
    ("points", "sizes"), [(12_544, (37_632, 3_136)), (16, (48, 4)), (5, (15, 2))]
)
def test_three_candidates_each_and_a_quarter_at_random(points, sizes):
    assert draw_sizes(points) == sizes


def test_keeps_the_candidates_nearest_to_zero_and_appends_the_rest():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 8)).astype(np.float32)
    candidates, rest = (rng.random((n, 2), np.float32) for n in draw_sizes(16))
    found = _choose(logits, candidates, rest)
    assert found.shape == (16, 2)
    np.testing.assert_array_equal(found[12:], rest)
    uncertainty = np.abs(_sample(logits, candidates))
    expected = candidates[np.argsort(uncertainty)[:12]]
    assert {tuple(p) for p in found[:12]} == {tuple(p) for p in expected}


def test_no_gradient_goes_through_the_choice():
    rng = np.random.default_rng(1)
    candidates, rest = (rng.random((n, 2), np.float32) for n in draw_sizes(8))
    total = compiled(jax.grad(lambda *x: uncertain_points(*x).sum()))
    logits = rng.normal(size=(3, 3)).astype(np.float32)
    assert not np.any(total(logits, candidates, rest))


def test_sampling_and_contraction_commute():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(5, 6, 4)).astype(np.float32)
    embed = rng.normal(size=4).astype(np.float32)
    points = rng.random((30, 2), np.float32)
    sampled_first = compiled(sample_channels)(features, points) @ embed
    contracted_first = _sample(features @ embed, points)
    np.testing.assert_allclose(sampled_first, contracted_first, atol=1e-5)
