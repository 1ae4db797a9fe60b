import jax
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import load
from tests.golden.operators import lovasz_results
from vis_jax.losses.lovasz import lovasz_hinge, lovasz_softmax

hinge, softmax = compiled(lovasz_hinge), compiled(lovasz_softmax)
ALL = np.ones(4, bool)


def test_certain_predictions_cost_their_jaccard_loss():
    targets = np.array([True, True, False, False])
    # Two of three pixels of the union are not shared: 1 - 1 / 3.
    probs = np.array([1.0, 0, 1, 0])
    probs = np.stack([1 - probs, probs], axis=1)
    losses = softmax(probs, targets.astype(np.int32), ALL)
    np.testing.assert_allclose(losses, [2 / 3, 2 / 3], rtol=1e-6)
    # A wrong sign of size 1 is a hinge error of 2.
    logits = np.array([1.0, -1, 1, -1])
    np.testing.assert_allclose(hinge(logits, targets, ALL), 2 * 2 / 3, rtol=1e-6)
    assert hinge(np.where(targets, 1.0, -1.0), targets, ALL) == 0


def test_pixels_left_out_change_nothing():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=9), rng.random(9) < 0.5
    probs, labels = rng.dirichlet(np.ones(3), 9), rng.integers(0, 3, 9).astype("i4")
    valid = np.arange(9) < 6
    few = np.ones(6, bool)
    np.testing.assert_allclose(
        hinge(logits, targets, valid), hinge(logits[:6], targets[:6], few), rtol=1e-6
    )
    np.testing.assert_allclose(
        softmax(probs, labels, valid), softmax(probs[:6], labels[:6], few), rtol=1e-6
    )
    slope = compiled(jax.grad(lovasz_hinge))(logits, targets, valid)
    assert np.isfinite(slope).all()
    assert (slope[6:] == 0).all()
    assert hinge(logits, targets, np.zeros(9, bool)) == 0


def test_an_absent_class_costs_its_largest_probability():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    losses = softmax(probs, np.zeros(4, np.int32), ALL)
    np.testing.assert_allclose(losses[1], 0.4, rtol=1e-6)


def test_matches_stored_losses_and_gradients():
    case = load("ops")
    results = lovasz_results(case)
    assert len(results) == 12
    for name, values in results.items():
        case.check(name, values)
