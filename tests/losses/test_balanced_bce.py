import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.losses.balanced_bce import balanced_bce

value_and_grad = compiled(jax.value_and_grad(balanced_bce))


def test_is_the_formula_on_the_pixels_that_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32) * 3
    targets, counts = rng.random((2, 2, 3, 4)) < 0.4
    probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
    positive, negative = targets & counts, ~targets & counts
    n_positive, n_negative = positive.sum(), negative.sum()
    total = n_positive + n_negative
    expected = -n_negative / total * np.log(probs[positive]).sum()
    expected -= n_positive / total * np.log(1 - probs[negative]).sum()
    value, gradient = value_and_grad(logits, targets, counts)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not gradient[~counts].any()
    # Undecided everywhere, both kinds pull equally: the gradient sums to zero.
    _, gradient = value_and_grad(np.zeros_like(logits), targets, counts)
    np.testing.assert_allclose(gradient.sum(), 0, atol=1e-5)


def test_large_logits_and_nothing_to_count_stay_finite():
    logits = np.array([1e4, -1e4, 0], np.float32)
    targets = np.array([False, True, True])
    for counts in (np.ones(3, bool), np.zeros(3, bool)):
        value, gradient = value_and_grad(logits, targets, counts)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert value == 0
