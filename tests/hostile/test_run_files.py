"""Files that a run or an evaluation has left, damaged; and a workdir in a bucket."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from tests.command_line import error_of
from tests.training.toy_run import Recorder
from tests.training.toy_system import toy_batches, toy_config, toy_system
from vis_jax.evaluate.finished import Finished
from vis_jax.evaluate.shares import PARTIAL
from vis_jax.params import flatten, unflatten
from vis_jax.training.checkpoint import save_variables
from vis_jax.training.initial import load_initial
from vis_jax.training.lock import LOCK, only_run
from vis_jax.training.loggers import TensorBoard
from vis_jax.training.loop import train
from vis_jax.training.tree_check import MismatchError
from vis_jax.training.writer import RunWriter

NESTED = b'{"a":' * 500 + b"1" + b"}" * 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b"\0" * 20,
        b"\xff\xfe",
        b"[" * 100_000,
        NESTED,
        b'{"system": 3}',
        b'{"system": "ifr", "data": 3}',
        b'{"system": "ifr", "data": {"name": "ovis"}, "num_steps": "many"}',
        b'{"system": "ifr", "data": {"name": "ovis"}, "num_steps": 1, "model": [1]}',
        b'{"system": "ifr", "data": {"name": "ovis"}, "optimizer": null}',
        b'{"system": "ifr", "data": {"name": "ovis"}, "evals": 7}',
        b'{"a.b": 1, "c": {"": {}}}',
    ],
)
def test_a_config_of_a_run_that_is_damaged_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    assert str(tmp_path / "config.json") in error_of("evaluate", "--workdir", tmp_path)


def test_a_part_that_is_no_section_is_named_when_a_field_of_it_is_set(tmp_path):
    (tmp_path / "config.json").write_text('{"system": "ifr", "model": 3}')
    words = ("--workdir", tmp_path, "--config.model.backbone.name=resnet50")
    error = error_of("evaluate", *words)
    assert error.startswith(f"{tmp_path / 'config.json'}: model")


HEAD = json.dumps({"run_id": "x"}).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 30,
        b"{",
        b"3",
        b"[1]",
        b'["a", []]',
        b"[1, 2]",
        b"[1, [2]]",
        b"[1,[]]",
        b"\xff",
    ],
)
def test_a_damaged_line_of_an_evaluation_is_named(tmp_path, line):
    (tmp_path / PARTIAL).write_bytes(HEAD + b"[7, []]\n" + line + b"\n[8, []]\n")
    expected = pytest.raises(ValueError, match="delete the file to evaluate")
    with expected as caught, Finished(tmp_path, "x"):
        pass
    assert str(caught.value).startswith(f"{tmp_path / PARTIAL}, line 3: ")


@pytest.mark.parametrize("end", [b"", b"[9, [", b"\0" * 30])
def test_what_follows_the_last_line_is_dropped(tmp_path, end):
    (tmp_path / PARTIAL).write_bytes(HEAD + b"[7, []]\n" + end)
    with Finished(tmp_path, "x") as finished:
        assert 7 in finished
        assert 9 not in finished
    assert (tmp_path / PARTIAL).read_bytes() == HEAD + b"[7, []]\n"


def test_a_line_of_another_evaluation_is_no_obstacle(tmp_path):
    (tmp_path / PARTIAL).write_bytes(HEAD + b"[7, []]\n")
    with Finished(tmp_path, "y") as finished:
        assert 7 not in finished


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that gs://bucket stands for."""
    place = tmp_path / "bucket"
    real = epath.Path

    def path(text=""):
        return real(str(text).replace("gs://bucket", str(place)))

    for module in ("loggers", "lock"):
        monkeypatch.setattr(f"vis_jax.training.{module}.epath.Path", path)
    return place


def test_events_reach_a_bucket(bucket):
    writer = RunWriter(9, [TensorBoard("gs://bucket/run")])
    assert (bucket / "run" / "tensorboard").is_dir()  # before the first step
    writer.scalars(1, {"loss": 1.5}, group="train")
    writer.images(1, {"clip": np.zeros((4, 6, 3), np.uint8)})
    writer.close()
    (file,) = (bucket / "run" / "tensorboard").iterdir()
    assert b"train/loss" in file.read_bytes()
    assert b"clip" in file.read_bytes()


def test_a_run_in_a_bucket_is_warned_of_another_one(bucket):
    said: list[str] = []
    with only_run("gs://bucket/run", say=said.append):
        assert said == []
        assert json.loads((bucket / "run" / LOCK).read_text())["pid"] > 0
    assert not (bucket / "run" / LOCK).exists()
    other = {"host": "elsewhere", "pid": 7, "start": "2024-01-01T00:00:00+00:00"}
    (bucket / "run" / LOCK).write_text(json.dumps(other))
    with only_run("gs://bucket/run", say=said.append):
        pass
    (line,) = said
    assert "names process 7 on host elsewhere, started 2024-01-01" in line


def variables_of(features: int) -> dict:
    system, batch = toy_system(features=features), next(toy_batches(0))
    from vis_jax.structures import Batch

    return jax.device_put(
        system.init(jax.random.key(0), Batch(**batch)), jax.devices()[0]
    )


def test_weights_of_another_shape_suggest_patterns_that_fit(tmp_path):
    save_variables(str(tmp_path / "w"), variables_of(5))
    own = variables_of(2)
    with pytest.raises(MismatchError) as caught:
        load_initial(str(tmp_path / "w"), own, fresh=())
    hint = "init_fresh=('head/.*', 'norm/.*')"
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
    fresh = ("head/.*", "norm/.*")
    loaded = flatten(load_initial(str(tmp_path / "w"), own, fresh=fresh))
    assert loaded.keys() == flatten(own).keys()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    own = variables_of(2)
    path = next(path for path in flatten(own) if path.startswith("params/"))
    bad = {name: np.array(x) for name, x in flatten(own).items()}
    bad[path].flat[-1] = value
    save_variables(str(tmp_path / "w"), unflatten(bad))
    with pytest.raises(ValueError, match=f"^init_from .*{path}: expected finite"):
        load_initial(str(tmp_path / "w"), own, fresh=())


def test_no_more_than_a_few_patterns_are_suggested(tmp_path):
    own = variables_of(2)
    deep = {f"block{n}": {"conv": {"kernel": np.ones(2)}} for n in range(9)}
    own["params"] |= {"backbone": deep}
    save_variables(str(tmp_path / "w"), variables_of(2))
    with pytest.raises(MismatchError, match=r"init_fresh=\('backbone/\.\*',\)"):
        load_initial(str(tmp_path / "w"), own, fresh=())


@pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache")
def test_a_full_disk_prints_no_trace(tmp_path, capfd):
    """No file may grow: the first checkpoint cannot be written."""
    from tests.small_disk import files_up_to

    with (
        jax.numpy_dtype_promotion("standard"),
        files_up_to(100),
        pytest.raises((ValueError, OSError)),
    ):
        train(toy_config(), toy_system(), toy_batches, str(tmp_path), writer=Recorder())
    assert "Traceback" not in capfd.readouterr().err
