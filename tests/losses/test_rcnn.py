import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.losses.rcnn import mask_loss, proposal_losses, region_losses, smooth_l1

LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [(1.0, 0.125 + 1.5), (0.25, 0.375 + 1.875), (0.0, 0.5 + 2.0)],
)
def test_smooth_l1_is_quadratic_up_to_beta(beta, expected):
    values, targets = np.array([[0.5, -2.0, 0.0, 1.0], [0, 0, 0, 1]])
    loss = compiled(smooth_l1, static_argnums=2)(values, targets, beta)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_proposals_are_averaged_over_valid_samples():
    losses = compiled(proposal_losses, static_argnames="beta")(
        np.array([[0.0, 0.0], [0.0, 50.0]]),
        np.full((2, 2, 4), 2.0),
        np.full((2, 2, 4), 1.0),
        positive=np.array([[True, False], [False, True]]),
        valid=np.array([[True, True], [True, False]]),
        beta=1.0,
    )
    np.testing.assert_allclose(losses.classes, LOG2, rtol=1e-6)
    # One positive of three samples; its four deltas are off by one.
    np.testing.assert_allclose(losses.boxes, 4 * 0.5 / 3, rtol=1e-6)


def region_inputs():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32)
    deltas = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    targets = rng.normal(size=(2, 3, 4)).astype(np.float32)
    labels = np.array([[2, 0, 3], [1, 3, 3]])
    return logits, deltas, targets, labels


run = compiled(region_losses, static_argnames="beta")


def test_regions_match_the_definition():
    logits, deltas, targets, labels = region_inputs()
    valid = np.array([[True, True, True], [True, True, False]])
    losses = run(logits, deltas, targets, labels=labels, valid=valid, beta=1.0)
    classes = boxes = 0.0
    for i, j in zip(*np.nonzero(valid), strict=True):
        label = int(labels[i, j])
        x = logits[i, j].astype(np.float64)
        classes += np.log(np.exp(x).sum()) - x[label]
        if label < 3:
            error = np.abs(deltas[i, j, label] - targets[i, j])
            boxes += np.where(error < 1, error**2 / 2, error - 0.5).sum()
    np.testing.assert_allclose(losses.classes, classes / 5, rtol=1e-5)
    np.testing.assert_allclose(losses.boxes, boxes / 5, rtol=1e-5)


def test_one_box_for_all_classes_is_that_of_every_class():
    logits, deltas, targets, labels = region_inputs()
    valid = np.ones((2, 3), bool)
    one = deltas[:, :, :1]
    rest = dict(labels=labels, valid=valid, beta=1.0)
    ours = run(logits, one, targets, **rest)
    np.testing.assert_array_equal(ours, run(logits, one.repeat(3, 2), targets, **rest))


def test_padding_and_other_classes_have_no_gradient():
    logits, deltas, targets, labels = region_inputs()
    valid = np.array([[True, True, True], [False, True, False]])

    def loss(logits, deltas):
        losses = region_losses(
            logits, deltas, jnp.asarray(targets),
            labels=jnp.asarray(labels), valid=jnp.asarray(valid), beta=1.0,
        )  # fmt: skip
        return sum(losses)

    by_logits, by_deltas = compiled(jax.grad(loss, (0, 1)))(logits, deltas)
    np.testing.assert_array_equal(by_logits.any(axis=-1), valid)
    expected = np.zeros((2, 3, 3), bool)
    expected[0, 0, 2] = expected[0, 1, 0] = True
    np.testing.assert_array_equal(by_deltas.any(axis=-1), expected)


def test_nothing_valid_is_zero():
    logits, deltas, targets, labels = region_inputs()
    none = np.zeros((2, 3), bool)
    losses = run(logits, deltas, targets, labels=labels, valid=none, beta=1.0)
    assert float(losses.classes) == float(losses.boxes) == 0
    cells = np.ones((2, 3, 4, 4))
    assert compiled(mask_loss)(cells, cells, none) == 0


def test_masks_are_averaged_over_cells_of_valid_regions():
    logits = np.stack([np.zeros((4, 4)), np.full((4, 4), 50.0)])
    targets = np.full((2, 4, 4), 0.5)
    loss = compiled(mask_loss)(logits, targets, np.array([True, False]))
    np.testing.assert_allclose(loss, LOG2, rtol=1e-6)
