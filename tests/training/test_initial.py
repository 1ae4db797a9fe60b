import jax
import numpy as np
import pytest

from tests.training.toy_system import toy_batch, toy_config, toy_system
from vis_jax.structures import Batch
from vis_jax.training.checkpoint import Checkpoints, save_variables
from vis_jax.training.initial import load_initial, prepare
from vis_jax.training.sharding import make_mesh, param_sharding


@pytest.fixture(scope="module")
def variables():
    batch = Batch(**toy_batch(0))
    init = toy_system(features=2).init
    return jax.device_put(init(jax.random.key(0), batch), jax.devices()[0])


@pytest.fixture(scope="module")
def other(variables):
    """Other values for the same tree."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 1.0, variables)


def test_takes_every_value_from_the_weights(variables, other, tmp_path):
    save_variables(str(tmp_path / "w"), other)
    loaded = load_initial(str(tmp_path / "w"), variables, fresh=())
    jax.tree.map(np.testing.assert_array_equal, loaded, other)


def test_fresh_parameters_keep_their_random_value(variables, other, tmp_path):
    other = other | {"params": {"head": {"kernel": np.ones((3, 9), np.float32)}}}
    other["params"]["head"]["bias"] = np.full(2, 5.0, np.float32)
    save_variables(str(tmp_path / "w"), other)
    path = str(tmp_path / "w")
    loaded = load_initial(path, variables, fresh=("head/kernel", "norm/.*"))
    kernel = variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(loaded["params"]["head"]["kernel"], kernel)
    np.testing.assert_array_equal(loaded["params"]["norm"]["scale"], np.ones(2))
    np.testing.assert_array_equal(loaded["params"]["head"]["bias"], np.full(2, 5.0))


def test_a_regex_of_fresh_parameters_must_match_something(variables, other, tmp_path):
    """Of the system, or of the weights, which may have more."""
    other = other | {"params": other["params"] | {"tail": {"bias": np.zeros(1)}}}
    save_variables(str(tmp_path / "w"), other)
    loaded = load_initial(str(tmp_path / "w"), variables, fresh=("tail/.*",))
    assert loaded["params"].keys() == {"head", "norm"}
    for typo, hint in (("norms/.*", "norm/.*"), ("tails/bias", "tail/bias")):
        with pytest.raises(ValueError, match="^init_fresh: expected regexes") as caught:
            load_initial(str(tmp_path / "w"), variables, fresh=("tail/.*", typo))
        assert f"did you mean {hint!r}?" in str(caught.value)


def test_what_is_not_fresh_must_fit(variables, other, tmp_path):
    other = other | {"params": {"head": other["params"]["head"]}}
    other["params"]["tail"] = {"bias": np.zeros(1, np.float32)}
    save_variables(str(tmp_path / "w"), other)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_initial(str(tmp_path / "w"), variables, fresh=())
    assert "2 missing: params/norm/bias, params/norm/scale" in str(caught.value)
    assert "1 unknown: params/tail/bias" in str(caught.value)


def test_init_from_starts_a_run_and_a_checkpoint_wins_over_it(other, tmp_path):
    save_variables(str(tmp_path / "w"), other)
    config = toy_config(init_from=str(tmp_path / "w"))
    batch = Batch(**toy_batch(0))
    system, mesh = toy_system(features=2), make_mesh()

    def begin():
        with Checkpoints(str(tmp_path), keep=1) as checkpoints:
            state, _ = prepare(
                config, system, batch, checkpoints=checkpoints, mesh=mesh
            )
        return state

    state = begin()
    jax.tree.map(np.testing.assert_array_equal, state.variables, other)
    assert int(state.step) == 0
    later = state._replace(step=state.step + 4)
    with Checkpoints(str(tmp_path), keep=1) as checkpoints:
        checkpoints.save(jax.device_put(later, param_sharding(later, mesh)), {})
    assert int(begin().step) == 4
