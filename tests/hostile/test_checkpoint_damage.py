"""Each file of the newest checkpoint damaged in each way: an older one is taken."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.test_checkpoint import make_state
from vis_jax.training.checkpoint import CheckpointError, Checkpoints, load_variables
from vis_jax.training.state import TrainState


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


DAMAGES = {
    "truncate": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zero": lambda content: bytes(len(content)),
    "flip": _flip,
    "delete": None,
}
# Needed: a run can do without the other files, whatever is in them.
NEEDED = ("_METADATA", "manifest.ocdbt", "d/*")
JSON = ("_sharding", "array_metadatas/process_0")
NOT_NEEDED = (
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
    "metrics/metrics",
    "metrics/commit_success.txt",
    "variables/commit_success.txt",
    "variables/ocdbt.process_0/manifest.ocdbt",
    "variables/ocdbt.process_0/d/*",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir with checkpoints of the steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("whole")
    with Checkpoints(str(workdir), keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(make_state(step), {"loss": 0.5 * step})
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def damage(workdir: Path, step: int, pattern: str, how: str) -> None:
    (path, *_) = sorted((workdir / "checkpoints" / str(step)).glob(pattern))
    if DAMAGES[how] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


def restore(workdir: Path) -> tuple[TrainState | None, list[str]]:
    """Returns the initial state of a run, and its messages."""
    said: list[str] = []
    with Checkpoints(str(workdir), keep=2) as checkpoints:
        state = checkpoints.restore_newest(make_state(0), say=said.append)
        if state is not None:  # the steps that follow can be written
            checkpoints.save(make_state(int(state.step) + 2), {})
    return state, said


def assert_is_step(state: TrainState | None, step: int) -> None:
    expected = make_state(step)
    assert state is not None
    got, wanted = jax.tree.leaves(state[:3]), jax.tree.leaves(expected[:3])
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("pattern", NEEDED)
@pytest.mark.parametrize("item", ["variables", "optimizer"])
def test_a_damaged_step_is_left_out_for_the_one_before(workdir, item, pattern, how):
    damage(workdir, 4, f"{item}/{pattern}", how)
    state, said = restore(workdir)
    assert_is_step(state, 2)
    (line,) = said
    assert line.startswith(f"{workdir}/checkpoints/4: cannot be read: {item}")
    assert line.endswith(f"moved to {workdir}/damaged/4, going on from step 2")
    assert line.count("\n") == 0
    assert len(line) < 3 * len(str(workdir)) + 350
    assert (workdir / "damaged" / "4" / "metrics" / "metrics").exists()
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.parametrize("how", ["truncate", "empty", "zero"])
@pytest.mark.parametrize("pattern", JSON)
def test_json_that_is_cut_is_named(workdir, pattern, how):
    damage(workdir, 4, f"variables/{pattern}", how)
    state, said = restore(workdir)
    assert_is_step(state, 2)
    assert f": cannot be read: variables/{pattern}: expected JSON, got " in said[0]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("pattern", NOT_NEEDED)
def test_what_is_not_needed_stops_nothing(workdir, pattern, how):
    damage(workdir, 4, pattern, how)
    state, said = restore(workdir)
    assert_is_step(state, 4)
    assert said == []


def test_broken_metrics_are_named_and_kept(workdir, capfd):
    damage(workdir, 4, "metrics/metrics", "truncate")
    restore(workdir)
    folder = workdir / "checkpoints" / "4" / "metrics"
    assert f"{folder / 'metrics'}: expected JSON, got" in capfd.readouterr().err
    assert (folder / "metrics.damaged").exists()


def test_no_whole_step_is_one_error_and_nothing_moves(workdir):
    for step in (2, 4):
        damage(workdir, step, "variables/manifest.ocdbt", "zero")
    with pytest.raises(CheckpointError, match="no checkpoint of this run can be") as e:
        restore(workdir)
    for step in (2, 4):
        assert f"checkpoints/{step}: cannot be read: variables/mani" in str(e.value)
    assert not (workdir / "damaged").exists()
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}


def test_a_step_that_is_damaged_twice_keeps_both_folders(workdir):
    for _ in range(2):
        damage(workdir, 4, "variables/_METADATA", "empty")
        assert_is_step(restore(workdir)[0], 2)
    assert {path.name for path in (workdir / "damaged").iterdir()} == {"4", "4.1"}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_prints_no_trace(workdir, how, capfd):
    damage(workdir, 4, "variables/d/*", how)
    restore(workdir)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", DAMAGES)
def test_weights_that_are_damaged_are_an_error_that_names_the_file(workdir, how):
    damage(workdir, 4, "variables/_METADATA", how)
    with pytest.raises(CheckpointError) as caught:
        load_variables(workdir)
    start = f"{workdir}/checkpoints/4: cannot be read: variables/_METADATA: "
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("items", [("variables",), ("variables", "optimizer", "*")])
def test_a_step_that_lacks_whole_items(workdir, items):
    """As where a copy of the folder was interrupted."""
    for item in items:
        for path in (workdir / "checkpoints/4").glob(item):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match="4: cannot be read: variables: not fou"):
        load_variables(workdir)
    state, said = restore(workdir)
    assert_is_step(state, 2)
    assert said[0].startswith(f"{workdir}/checkpoints/4: cannot be read: ")
