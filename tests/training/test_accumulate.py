"""Microbatches and moving averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.test_loop import assert_same, run
from tests.training.toy_run import Recorder
from tests.training.toy_system import (
    toy_batch,
    toy_batches,
    toy_config,
    toy_system,
)
from vis_jax.structures import Batch
from vis_jax.training.accumulate import accumulated, loss_and_gradients
from vis_jax.training.changes import ChangedSettingsError
from vis_jax.training.checkpoint import load_variables
from vis_jax.training.run import open_run
from vis_jax.training.state import move_average, start_average

KEY = jax.random.key(2)


def test_accumulation_is_the_mean_over_microbatches():
    """Averages loss, terms and gradients; sums notes; updates statistics twice."""
    system, batch = toy_system(), jax.device_put(Batch(**toy_batch(0, clips=8)))
    variables = system.init(KEY, batch)
    found = accumulated(
        system.loss, variables, batch, KEY, count=2,
        place_batch=lambda tree: tree, place_gradients=lambda tree: tree,
    )  # fmt: skip
    parts, now = [], variables
    for i in range(2):
        part = jax.tree.map(lambda leaf, i=i: leaf[i::2], batch)
        rng = jax.random.fold_in(KEY, i)
        parts.append(loss_and_gradients(system.loss, now, part, rng))
        now = variables | {"batch_stats": parts[-1].aux.batch_stats}

    def near(got, wanted):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)  # of batch norm

    def means(get):
        return jax.tree.map(lambda a, b: (a + b) / 2, *map(get, parts))

    near(found.loss, means(lambda part: part.loss))
    jax.tree.map(near, found.aux.terms, means(lambda part: part.aux.terms))
    jax.tree.map(near, found.gradients, means(lambda part: part.gradients))
    jax.tree.map(near, found.aux.batch_stats, now["batch_stats"])
    assert float(found.aux.batch_stats["updates"]) == 2.0
    assert float(found.aux.notes["dark"]) == sum(
        float(part.aux.notes["dark"]) for part in parts
    )


def test_a_mean_over_clips_is_the_same_in_microbatches(tmp_path):
    """Without batch norm, noise and sums over objects: the run is as at once."""
    toy = toy_system(noise=0.0)

    def loss(variables, batch, rng):
        del rng
        colour = batch.images.astype(jnp.float32).mean((1, 2, 3)) / 255.0
        kernel = variables["params"]["head"]["kernel"]
        value = jnp.mean((colour @ kernel) ** 2)
        _, aux = toy.loss(variables, batch, KEY)
        return value, aux._replace(terms={"fit": value})

    system = toy._replace(loss=loss)
    _, whole = run(tmp_path / "a", system=system, num_steps=3)
    _, parts = run(
        tmp_path / "b", system=system, num_steps=3, **{"train.accumulate": 4}
    )
    for step, value in whole.losses.items():
        np.testing.assert_allclose(parts.losses[step], value, rtol=1e-5)


def test_microbatches_need_equally_many_clips(tmp_path):
    with pytest.raises(ValueError, match="train.accumulate: .* divisor of 8, .* got 3"):
        run(tmp_path, **{"train.accumulate": 3})


def test_an_average_in_closed_form():
    old = {"params": {"a": jnp.array([1.0, 3.0])}}
    new = {"params": {"a": jnp.array([2.0, 3.0])}, "constants": {"b": jnp.ones(1)}}
    first = move_average(old, new, decay=0.5, step=jnp.int32(0))  # (1 + 0) / 10 = 0.1
    np.testing.assert_allclose(first["params"]["a"], [1.9, 3.0], rtol=1e-6)
    later = move_average(old, new, decay=0.5, step=jnp.int32(99))
    np.testing.assert_allclose(later["params"]["a"], [1.5, 3.0], rtol=1e-6)
    assert later["params"]["a"][1] == 3.0  # to the last bit
    assert start_average(new).keys() == {"params"}


EMA = {"train.ema": 0.5, "train.keep": 3}


def test_the_average_is_evaluated_drawn_and_loaded(tmp_path):
    seen = []

    def see(variables, *_):
        seen.append(jax.device_get(variables))
        return {}

    def draw(variables, batch, step):
        return see(variables)

    state, _ = run(
        tmp_path, evaluate=see, draw=draw, num_steps=4, **EMA,
        **{"train.image_every": 4},
    )  # fmt: skip
    average = jax.device_get(state.average)
    assert average.keys() == {"params", "batch_stats"}
    kernel = average["params"]["head"]["kernel"]
    assert np.abs(kernel - state.variables["params"]["head"]["kernel"]).max() > 1e-5
    for variables in (*seen, load_variables(str(tmp_path))):
        assert variables.keys() == state.variables.keys()
        jax.tree.map(
            np.testing.assert_array_equal, {k: variables[k] for k in average}, average
        )
    assert len(seen) == 2


def test_a_resumed_average_has_the_same_bits(tmp_path):
    expected, _ = run(tmp_path / "whole", **EMA)
    run(tmp_path / "half", num_steps=3, **EMA)
    state, _ = run(tmp_path / "half", **EMA)
    assert_same(state, expected)
    jax.tree.map(np.testing.assert_array_equal, state.average, expected.average)


def test_a_run_that_kept_no_average_begins_one_when_told(tmp_path):
    run(tmp_path, num_steps=3)
    with pytest.raises(ChangedSettingsError, match=r"train.ema: 0.0 -> 0.5"):
        run(tmp_path, num_steps=4, **EMA)
    opened = open_run(
        toy_config(num_steps=4, **EMA), toy_system(), toy_batches,
        workdir=str(tmp_path), writer=Recorder(), accept_changes=True,
    )  # fmt: skip
    with opened as begun:
        state = begun.state
    assert int(state.step) == 3
    for name, average in state.average.items():
        jax.tree.map(np.testing.assert_array_equal, average, state.variables[name])
