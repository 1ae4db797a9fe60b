"""A run that is stopped, started twice, or started again with other settings."""

import json
import multiprocessing
import os
import shutil
import signal
import socket

import jax
import numpy as np
import pytest

from tests.training.toy_run import Recorder
from tests.training.toy_system import toy_batches, toy_config, toy_system
from vis_jax.training.changes import ChangedSettingsError, is_decisive
from vis_jax.training.lock import LOCK, WorkdirInUseError, only_run
from vis_jax.training.loop import Evaluation, train

FORK = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Optax mixes dtypes in its updates."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(workdir, *, score=None, batches=toy_batches, accept=False, every=0, **changes):
    """The final state, how it ended (None or an exit code), and the record."""
    recorder, state, code = Recorder(), None, None
    evaluations = [Evaluation("", every, score)] if score else []
    try:
        state = train(
            toy_config(**changes), toy_system(), batches, str(workdir),
            evaluations=evaluations, writer=recorder, accept_changes=accept,
        )  # fmt: skip
    except SystemExit as leaving:
        code = leaving.code
    table = "all  "  # of the parameters, which each run begins with
    recorder.messages = [line for line in recorder.messages if table not in line]
    return state, code, recorder


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGUSR1, "SIGUSR1", 143),
        (signal.SIGINT, "Ctrl-C", 130),
    ],
)
@pytest.mark.parametrize("at", [3, 6])
def test_a_signal_ends_an_evaluation_at_once(tmp_path, number, name, code, at):
    reached = []

    def score(variables, step):
        if step == at:
            os.kill(os.getpid(), number)
            reached.append(step)  # an interpreter that went on would get here
        return {"AP": float(step)}

    before = signal.getsignal(number)
    _, got, record = run(tmp_path, score=score, every=3)
    assert (got, reached) == (code, [])
    assert record.messages == [
        f"{name}: saved step {at}; to go on:"
        f" python -m vis_jax.main --workdir {tmp_path}"
    ]
    assert (tmp_path / "checkpoints" / str(at)).exists()
    assert signal.getsignal(number) is before
    state, got, record = run(tmp_path, every=3)
    assert got is None
    assert sorted(record.losses) == list(range(at + 1, 7))
    assert int(state.step) == 6


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)],
)
def test_a_signal_before_the_first_update_ends_the_run(tmp_path, number, name, code):
    def batches(start):
        os.kill(os.getpid(), number)
        yield from toy_batches(start)

    before = signal.getsignal(number)
    _, got, record = run(tmp_path, batches=batches)
    assert got == code
    assert record.messages == [f"{name}: nothing to save yet; start again to go on"]
    assert record.losses == {}
    assert not list((tmp_path / "checkpoints").iterdir())
    assert signal.getsignal(number) is before

    run(tmp_path, num_steps=1)  # of a run that goes on, the folder has all settings
    _, got, record = run(tmp_path, batches=batches, num_steps=2)
    again = f"to go on: python -m vis_jax.main --workdir {tmp_path}"
    assert got == code
    assert record.messages[-1] == f"{name}: nothing to save yet; {again}"


def test_a_second_run_on_the_workdir_is_refused(tmp_path):
    def score(variables, step):
        holder = json.loads((tmp_path / LOCK).read_text())
        assert (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid())
        before = sorted((tmp_path / "checkpoints").iterdir())
        with pytest.raises(WorkdirInUseError) as caught:
            run(tmp_path)
        assert str(caught.value).startswith(
            f"{tmp_path}: expected no other run on this workdir, got process"
            f" {os.getpid()} on host {socket.gethostname()}, started {holder['start']};"
        )
        assert sorted((tmp_path / "checkpoints").iterdir()) == before
        return {"AP": 1.0}

    run(tmp_path, score=score)
    assert (tmp_path / LOCK).read_text() == ""
    run(tmp_path, score=None)  # free again


def test_an_error_frees_the_workdir(tmp_path):
    with pytest.raises(RuntimeError, match="broken"), only_run(str(tmp_path)):
        raise RuntimeError("broken")
    assert (tmp_path / LOCK).read_text() == ""
    with only_run(str(tmp_path)):
        pass


def _die_with_the_lock(workdir):
    lock = only_run(workdir)
    lock.__enter__()
    os._exit(9)


def test_the_lock_of_a_dead_run_is_taken_over(tmp_path):
    holder = FORK.Process(target=_die_with_the_lock, args=(str(tmp_path),))
    holder.start()
    holder.join()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid
    with only_run(str(tmp_path)):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\0\0"])
def test_a_lock_that_says_nothing_is_no_obstacle(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with only_run(str(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("host", "pid", "refused"),
    [
        (socket.gethostname(), 2**22 + 1, False),  # no such process
        (socket.gethostname(), os.getppid(), True),
        ("another", 1, True),
    ],
)
def test_without_locks_of_the_disk_the_file_decides(
    tmp_path, monkeypatch, host, pid, refused
):
    def no_locks(*unused):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    holder = {"host": host, "pid": pid, "start": "2024-01-01T00:00:00+00:00"}
    (tmp_path / LOCK).write_text(json.dumps(holder))
    if not refused:
        with only_run(str(tmp_path)):
            pass
        return
    with (
        pytest.raises(WorkdirInUseError, match=f"{pid} on host {host}") as caught,
        only_run(str(tmp_path)),
    ):
        pass
    assert (f"delete {tmp_path / LOCK}" in str(caught.value)) == (host == "another")


@pytest.fixture(scope="module")
def kept_three_steps(standard_promotion, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("three_steps") / "run"
    run(workdir, num_steps=3)
    return workdir


@pytest.fixture
def three_steps(kept_three_steps, tmp_path):
    """A workdir that is at step 3 of 6."""
    return shutil.copytree(kept_three_steps, tmp_path / "run")


def test_the_same_settings_are_not_mentioned(three_steps):
    _, _, record = run(three_steps, num_steps=3)
    assert record.messages == []


def test_settings_that_may_change_are_printed(three_steps):
    changes = {"optimizer.learning_rate": 0.02, "train.keep": 1}
    state, _, record = run(three_steps, num_steps=6, **changes)
    assert int(state.step) == 6
    saved = json.loads((three_steps / "config.json").read_text())
    assert saved["optimizer"]["learning_rate"] == 0.02


def test_each_difference_is_a_line(three_steps):
    said = Recorder()
    config = toy_config(**{"num_steps": 6, "optimizer.learning_rate": 0.02})
    train(config, toy_system(), toy_batches, str(three_steps), writer=said)
    assert said.messages[:2] == [
        "setting changed  num_steps: 3 -> 6",
        "setting changed  optimizer.learning_rate: 0.01 -> 0.02",
    ]


def test_another_seed_is_refused_unless_accepted(three_steps):
    before = (three_steps / "config.json").read_text()
    with pytest.raises(ChangedSettingsError, match="seed: 3 -> 4; set them back"):
        run(three_steps, seed=4)
    assert (three_steps / "config.json").read_text() == before
    state, *_ = run(three_steps, seed=4, accept=True)
    assert int(state.step) == 6


def test_another_optimizer_is_refused_also_if_accepted(three_steps):
    kind = {"optimizer.kind": "sgd"}
    with pytest.raises(ChangedSettingsError, match='"adamw" -> "sgd": a run cannot go'):
        run(three_steps, accept=True, **kind)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seed", True),
        ("data.batch_size", True),
        ("data.shapes.seed", True),
        ("data.root", False),
        ("model.num_classes", True),
        ("loss.mask", True),
        ("system", True),
        ("num_steps", False),
        ("optimizer.learning_rate", False),
        ("train.keep", False),
        ("test.split", False),
        ("dataset", False),
    ],
)
def test_decisive_settings(name, expected):
    assert is_decisive(name) is expected


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\0" * 9, b"[" * 99999, b"\xff"]
)
def test_a_config_that_cannot_be_read_is_named(three_steps, content):
    (three_steps / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be compared") as caught:
        run(three_steps)
    assert str(caught.value).startswith(f"{three_steps / 'config.json'}: ")
    state, *_ = run(three_steps, accept=True)
    assert int(state.step) == 6
    assert json.loads((three_steps / "config.json").read_text())["num_steps"] == 6


def test_damage_moves_the_batches_back_as_well(tmp_path):
    """The run goes on from step 4 with the batches that follow step 4."""
    expected, *_ = run(tmp_path / "whole")
    run(tmp_path / "run")
    manifest = tmp_path / "run" / "checkpoints" / "6" / "variables" / "manifest.ocdbt"
    manifest.write_bytes(b"")
    state, _, record = run(tmp_path / "run")
    assert sorted(record.losses) == [5, 6]
    jax.tree.map(np.testing.assert_array_equal, state.variables, expected.variables)
