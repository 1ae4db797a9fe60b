import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.losses.classification import sigmoid_focal, weighted_cross_entropy

_focal = compiled(sigmoid_focal)
_cross_entropy = compiled(weighted_cross_entropy, static_argnums=2)


def test_focal_loss_of_an_undecided_query():
    # p = 1/2 for both: 1/4 ln 2, times 1/4 for the true class and 3/4 for the other.
    loss = _focal(np.zeros((1, 2), np.float32), np.array([1], np.int32))
    np.testing.assert_allclose(loss, [np.log(2) / 4], rtol=1e-6)


def test_focal_loss_is_the_formula():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(2, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 4)).astype(np.int32)  # 3 = no object
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    true = np.eye(4)[labels][..., :3]
    expected = -0.25 * true * (1 - p) ** 2 * np.log(p)
    expected -= 0.75 * (1 - true) * p**2 * np.log(1 - p)
    np.testing.assert_allclose(_focal(logits, labels), expected.sum(-1), rtol=1e-4)


def test_focal_loss_is_finite_for_any_logit_and_so_is_its_gradient():
    logits = np.array([[-100.0, 100.0], [100.0, -100.0]], np.float32)
    labels = np.array([0, 0], np.int32)
    total, gradient = compiled(
        jax.value_and_grad(lambda x, labels: sigmoid_focal(x, labels).sum())
    )(logits, labels)
    np.testing.assert_allclose(total, 0.25 * 100 + 0.75 * 100, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_cross_entropy_is_a_weighted_mean():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 4, 3)).astype(np.float32)
    labels = np.array([[0, 1, 2, 2], [2, 2, 2, 1]], np.int32)  # 2 = no object
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    weights = np.where(labels == 2, 0.1, 1.0)
    expected = (weights * losses).sum() / weights.sum()
    np.testing.assert_allclose(_cross_entropy(logits, labels, 0.1), expected, rtol=1e-5)
