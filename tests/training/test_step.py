"""One update of a system with one parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.training.toy_system import toy_batch, toy_system
from vis_jax.structures import Batch, LossAux
from vis_jax.training.optimizer import Optimizer
from vis_jax.training.state import TrainState
from vis_jax.training.step import update_once

KEY = jax.random.key(5)


def _loss(variables, batch, rng):
    del batch
    noise = jax.random.uniform(rng)
    loss = 0.5 * jnp.sum(variables["params"]["weight"] ** 2) + noise
    return loss, LossAux({"noise": noise}, {}, {"twice": 2 * noise})


def _update(step):
    """Updates the weight (3, 4) by gradient descent with rate 0.5."""
    params = {"weight": jnp.array([3.0, 4.0])}
    transform = optax.sgd(0.5)
    optimizer = Optimizer(transform, lambda count: 0.5 + count, lambda tree: tree)
    opt_state = transform.init(params)
    state = TrainState(jnp.int32(step), {"params": params}, opt_state, KEY)
    system = toy_system()._replace(loss=_loss)
    batch = Batch(**toy_batch(0, clips=1))
    return update_once(state, batch, system=system, optimizer=optimizer)


def test_an_update_in_closed_form():
    state, metrics = _update(2)
    np.testing.assert_allclose(state.variables["params"]["weight"], [1.5, 2.0])
    assert int(state.step) == 3
    np.testing.assert_allclose(metrics.loss, 12.5 + metrics.terms["noise"])
    np.testing.assert_allclose(metrics.notes["twice"], 2 * metrics.terms["noise"])
    np.testing.assert_allclose(metrics.gradient_norm, 5.0)
    np.testing.assert_allclose(metrics.learning_rate, 2.5)


def test_every_step_draws_from_a_key_of_its_own():
    for step in (0, 1, 7):
        state, metrics = _update(step)
        expected = jax.random.uniform(jax.random.fold_in(KEY, step))
        np.testing.assert_array_equal(metrics.terms["noise"], expected)
        np.testing.assert_array_equal(*map(jax.random.key_data, (state.rng, KEY)))
