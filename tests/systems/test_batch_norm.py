"""Systems whose backbone has batch norm with running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.recipes import recipe
from tests.systems.contract import check_padding, check_system, first_batch
from vis_jax.params import flatten
from vis_jax.systems import SYSTEMS, ifr
from vis_jax.training import optimizer as optimizers
from vis_jax.training.state import TrainState
from vis_jax.training.step import update_once

NORM = {"model.backbone.norm": "batch"}


@pytest.mark.parametrize(
    "name", ["ifr_shapes", "mask_track_rcnn_shapes", "osmn_shapes"]
)
def test_an_update_keeps_all_statistics(name):
    """Those of a detector that is not trained, too."""
    config = recipe(name, "debug", NORM)
    system, batch = SYSTEMS[config.system].build(config), first_batch(config)
    key = jax.random.key(0)
    variables = dict(jax.eval_shape(system.init, key, batch))
    assert "backbone" in variables["batch_stats"]
    assert not any("norm" in path for path in flatten(variables.get("constants", {})))
    _, aux = jax.eval_shape(system.loss, variables, batch, key)
    expected = jax.tree.map(jnp.shape, variables["batch_stats"])
    assert jax.tree.map(jnp.shape, aux.batch_stats) == expected


def test_trains_and_evaluates_by_what_training_has_kept():
    """Padded frames change nothing: the contract has that."""
    config = recipe("ifr_shapes", "debug", {**NORM, "model.mask_decoder.layers": 1})
    checked = check_system(ifr.build, config)
    check_padding(checked)
    group = recipe("ifr_shapes", "debug", {"model.mask_decoder.layers": 1})
    assert group.model.backbone.norm == "group"
    assert "batch_stats" not in jax.eval_shape(
        ifr.build(group).init, jax.random.key(0), checked.batch
    )
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    optimizer = optimizers.Optimizer(transform, lambda count: 0.1, lambda tree: tree)
    variables = jax.tree.map(jnp.asarray, checked.variables)
    state = TrainState(
        jnp.int32(0), variables, transform.init(variables["params"]), jax.random.key(1)
    )

    @jax.jit
    def update(state, batch):
        return update_once(state, batch, system=checked.system, optimizer=optimizer)

    losses = []
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        for _ in range(10):
            state, metrics = update(state, checked.batch)
            losses.append(float(metrics.loss))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), losses
    before = flatten(variables["batch_stats"])
    for path, leaf in flatten(state.variables["batch_stats"]).items():
        assert np.any(leaf != before[path]), path

    @jax.jit
    def step(variables, clip):
        return checked.system.step(variables, checked.system.start(clip), clip)[1]

    kept = step(state.variables, checked.clip).class_probs
    other = {**state.variables, "batch_stats": variables["batch_stats"]}
    other = step(other, checked.clip)
    assert np.abs(kept - other.class_probs).max() > 1e-3
