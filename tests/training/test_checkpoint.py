import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    load_variables,
    save_variables,
)
from vis_jax.training.state import TrainState


def make_state(step, width=2):
    params = {"head": {"kernel": jnp.full((3, width), float(step))}}
    return TrainState(
        step=jnp.int32(step),
        variables={"params": params, "constants": {}},
        opt_state=({"mu": params}, (), jnp.int32(step)),
        rng=jax.random.key(7),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with checkpoints of the steps 2 and 3; that of step 1 is gone."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(str(workdir), keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(make_state(step), {"loss": 0.5 * step})
    return workdir


def test_keeps_the_newest_with_their_metrics(run):
    folders = {path.name for path in (run / "checkpoints").iterdir()}
    assert folders == {"2", "3"}
    metrics = run / "checkpoints" / "3" / "metrics" / "metrics"
    assert json.loads(metrics.read_text()) == {"loss": 1.5}


def test_restores_every_part_of_the_state(run):
    like = jax.tree.map(lambda leaf: leaf, make_state(0))
    with Checkpoints(str(run), keep=2) as checkpoints:
        assert checkpoints.latest_step() == 3
        state = checkpoints.restore(3, like)
    expected = make_state(3)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert (jax.random.key_data(state.rng) == jax.random.key_data(expected.rng)).all()
    for got, wanted in zip(
        jax.tree.leaves(state[:3]), jax.tree.leaves(expected[:3]), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_another_model_is_an_error_that_names_the_parameters(run):
    like = make_state(3, width=4)
    like.variables["params"] |= {"neck": {"bias": jnp.zeros(2)}}
    with (
        Checkpoints(str(run), keep=2) as checkpoints,
        pytest.raises(ValueError, match="does not fit the model") as caught,
    ):
        checkpoints.restore(3, like)
    assert "1 missing: params/neck/bias" in str(caught.value)
    assert (
        "1 different: params/head/kernel (expected float32[3, 4], got float32[3, 2])"
        in str(caught.value)
    )


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/3"])
def test_loads_variables_from_a_workdir_or_what_is_in_it(run, inside):
    variables = load_variables(str(run / inside))
    assert set(variables) == {"params", "constants"}
    kernel = variables["params"]["head"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, np.full((3, 2), 3.0))


def test_saved_variables_come_back(tmp_path):
    variables = {"params": {"a": {"b": np.arange(6.0, dtype=np.float32)}}}
    save_variables(str(tmp_path / "weights"), variables)
    loaded = load_variables(str(tmp_path / "weights"))
    np.testing.assert_array_equal(loaded["params"]["a"]["b"], np.arange(6.0))
    with pytest.raises(CheckpointError, match="exists"):
        save_variables(str(tmp_path / "weights"), variables)


@pytest.mark.parametrize("inside", ["", "nothing/here"])
def test_no_checkpoint_is_an_error(tmp_path, inside):
    with pytest.raises(CheckpointError, match="no checkpoint; expected a workdir"):
        load_variables(str(tmp_path / inside))


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    save_variables(str(tmp_path / "weights"), {"params": {"a": np.ones(3)}})
    for path in (tmp_path / "weights" / "variables").rglob("*"):
        if path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_variables(str(tmp_path / "weights"))


# Threads of TensorStore may outlive the event loop of the write that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_an_error_and_spares_earlier_checkpoints(tmp_path, monkeypatch):
    with Checkpoints(str(tmp_path), keep=2) as checkpoints:
        checkpoints.save(make_state(1), {})

    def full(*unused, **unused_too):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(CheckpointError, match="step 2: .* no space left") as caught,
        Checkpoints(str(tmp_path), keep=2) as checkpoints,
    ):
        patch.setattr("json.dumps", full)  # Orbax writes the metrics with it
        checkpoints.save(make_state(2), {"loss": 1.0})
        checkpoints.wait()
    assert str(caught.value).endswith(": [1]")
    kernel = load_variables(str(tmp_path))["params"]["head"]["kernel"]
    np.testing.assert_array_equal(kernel, np.full((3, 2), 1.0))
    with Checkpoints(str(tmp_path), keep=2) as again:  # clears away the half-written
        again.save(make_state(2), {})
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="at least 1 checkpoint, got 0"):
        Checkpoints(str(tmp_path), keep=0)
