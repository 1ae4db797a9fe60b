"""Errors before a training starts; tests/test_end_to_end.py trains."""

import json
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.command_line import call, error_of
from tests.commands.folder import CONFIG, config_words, cut, edit, write_folder
from tests.recipes import recipe
from tests.training.toy_system import toy_system
from vis_jax.commands import parts
from vis_jax.commands.evaluate import open_split
from vis_jax.commands.train import evaluations_of
from vis_jax.settings import CONFIG_FILE, to_dict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


def train_error(folder, workdir, *words):
    words = ("--config", CONFIG, *config_words(folder), *words)
    return error_of("train", "--workdir", workdir, *words)


def first_track(change):
    return lambda content: change(content["annotations"][0])


def first_video(change):
    return lambda content: change(content["videos"][0])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            first_track(lambda track: track["segmentations"].pop()),
            "segmentations: expected one entry for each of 4 frames, got 3 entries",
        ),
        (
            first_video(lambda video: video["file_names"].pop()),
            "length: expected the number of file_names, 3, got 4",
        ),
        (
            first_video(lambda video: video.update(file_names=[], length=0)),
            "file_names: expected 1 to 100000 frames, got 0",
        ),
        (
            first_video(lambda video: video.update(height="64")),
            "height: expected a whole number, 1 to 16384, got 64",
        ),
        (
            first_track(lambda track: track.update(video_id=None)),
            "video_id: expected an id that 'videos' lists, got None",
        ),
        (
            lambda content: content.update(annotations={}),
            "annotations: expected a list, got {}",
        ),
    ],
)
def test_defects_of_the_annotations_are_named(folder, tmp_path, change, expected):
    edit(folder, change)
    message = train_error(folder, tmp_path / "run")
    assert message.startswith(f"{folder / 'instances.json'}, ")
    assert expected in message
    assert not (tmp_path / "run").exists()


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "none"
    message = train_error(missing, tmp_path / "run")
    assert message == f"{missing}: expected a folder, got no such folder"
    assert not (tmp_path / "run").exists()


def test_annotations_that_end_in_the_middle_are_named(folder, tmp_path):
    cut(folder / "instances.json")
    message = train_error(folder, tmp_path / "run")
    assert message.startswith(f"{folder / 'instances.json'}: expected JSON, got ")
    assert "where the file is cut off" in message
    assert not (tmp_path / "run").exists()


def test_a_truncated_image_is_named_and_nothing_is_trained(folder, tmp_path):
    for path in (folder / "JPEGImages").rglob("*.jpg"):
        cut(path)
    words = ("--config", CONFIG, *config_words(folder))
    outcome = call("train", "--workdir", tmp_path / "run", *words)
    assert outcome.code == 2
    phase, message = outcome.err.splitlines()
    assert phase.startswith("first batch") and message.startswith("error: ")
    assert str(folder / "JPEGImages") in message
    assert "expected a whole image" in message
    assert not list((tmp_path / "run").rglob("variables"))


def test_settings_that_cannot_be_are_named(whole, tmp_path):
    def error(*words):
        return train_error(whole, tmp_path / "run", *words)

    assert "system: expected one of" in error("--config.system=irf")
    assert "data.loader: expected 'tf' or 'numpy', got 'tff'" in error(
        "--config.data.loader=tff"
    )
    assert "data.canvas: expected" in error("--config.data.canvas=(64,'a')")
    assert "train.log_every: expected" in error("--config.train.log_every=0")
    assert "test.frame_buckets: expected" in error("--config.test.frame_buckets=a")
    assert "test.chunk: expected" in error("--config.test.chunk=0")
    assert "train.best: expected one of ['AP', 'AP50'," in error(
        "--config.train.best=APP"
    )
    message = error("--config.model.num_classes=3")
    assert message.startswith("model.num_classes: expected 8")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.best=quick/AP", "train.best: expected METRIC, of the evaluation on"),
        ("train.accumulate=3", "train.accumulate: expected a divisor of "),
        ("mesh.fsdp=1000", "mesh.fsdp: expected "),
        ("init_from=nowhere", "nowhere: expected the folder of a model, or the name"),
        ("init_fresh=('(',)", "init_fresh: expected regexes, got '('"),
        ("optimizer.rates=(('(',1.0),)", "optimizer.rates: expected regexes, got '('"),
        ("optimizer.warmup_steps=4", "optimizer.warmup_steps: expected less than num"),
        ("data.canvas=(64,97)", "data.canvas: expected multiples of 32 pixels, got "),
    ],
)
def test_settings_are_checked_before_the_data_is_opened(tmp_path, setting, expected):
    message = train_error(tmp_path / "none", tmp_path / "run", f"--config.{setting}")
    assert expected in message


@pytest.mark.parametrize(
    ("system", "setting", "expected"),
    [
        ("yolact", "test.objects=100000", "test.objects: expected at most "),
        ("videomt", "loss.chunk=3", "loss.chunk: expected a divisor of data.frames, 2"),
    ],
)
def test_a_system_is_built_before_the_data_is_opened(
    tmp_path, system, setting, expected
):
    words = ("--config", f"configs/{system}_shapes.py:debug", *config_words("none"))
    words = (*words, "--workdir", tmp_path / "run", f"--config.{setting}")
    assert error_of("train", *words).startswith(expected)


@pytest.mark.parametrize("field", ["rates", "decays"])
def test_rules_are_held_against_the_parameters_before_the_data_is_opened(
    tmp_path, monkeypatch, field
):
    monkeypatch.setattr(parts, "build_system", lambda config: toy_system())
    words = (f"--config.optimizer.{field}=(('head/.*',1.0),)",)
    message = train_error(tmp_path / "none", tmp_path / "run", *words)
    assert message.startswith(f"optimizer.{field}: expected a rule for each parameter")
    assert "2 parameters match none, such as ['norm/bias', 'norm/scale']" in message


@pytest.mark.parametrize(
    ("field", "rules"),
    [
        ("optimizer.rates", "(('heads/.*',0.1),('.*',1.0))"),
        ("optimizer.decays", "(('heads/.*',0.1),('.*',1.0))"),
        ("optimizer.late", "(('heads/.*',1,1),)"),
        ("mesh.rules", "(('heads/.*',None),)"),
    ],
)
def test_a_rule_that_matches_nothing_is_told_before_the_data_is_opened(
    tmp_path, monkeypatch, field, rules
):
    monkeypatch.setattr(parts, "build_system", lambda config: toy_system())
    words = (f"--config.{field}={rules}",)
    message = train_error(tmp_path / "none", tmp_path / "run", *words)
    assert message.startswith(f"{field}: expected regexes that match whole paths")
    assert "'heads/.*', which matches none; did you mean 'head/.*'?" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--config.num_steps=3",), "num_steps: expected at least 4, the updates that"),
        ((), "the run in this workdir has other settings: data.name: "),
        (("--accept_changes",), "none: expected a folder, got no such folder"),
    ],
)
def test_a_run_is_resumed_before_the_data_is_opened(tmp_path, words, expected):
    run = tmp_path / "run"
    (run / "checkpoints" / "4").mkdir(parents=True)
    config = to_dict(recipe("ifr_shapes", "debug", {}))
    (run / CONFIG_FILE).write_text(json.dumps(config))
    assert expected in train_error(tmp_path / "none", run, *words)


def test_a_batch_that_the_devices_cannot_share_is_named(tmp_path, monkeypatch):
    devices = types.SimpleNamespace(size=3)
    monkeypatch.setattr("vis_jax.training.sharding.make_mesh", lambda settings: devices)
    words = ("--config.data.batch_size=8",)
    message = train_error(tmp_path / "none", tmp_path / "run", *words)
    expected = "expected a multiple of 3, the devices of this run, got 8"
    assert message == f"data.batch_size: {expected}"


def test_the_test_split_is_looked_at_before_the_training(whole, tmp_path):
    split = "--config.test.split=held_out"
    message = train_error(whole, tmp_path / "run", split)
    assert "expected videos in part 'held_out' (data.held_out names" in message
    assert not (tmp_path / "run").exists()


def test_every_evaluation_has_its_own_videos_settings_and_folder(tmp_path):
    small = dict(every=2, test=dict(videos=1, split="test", top=3))
    hard = dict(data=dict(shapes=dict(num_videos=5, difficulty="hard")))
    evals = {"evals": {"small": small, "hard": hard}, "test.videos": 0}
    config = recipe("ifr_shapes", "debug", {**evals, "train.eval_every": 4})
    categories = open_split(config).categories
    found = evaluations_of(config, categories, str(tmp_path))
    assert [(one.name, one.every) for one in found] == [
        ("", 4), ("small", 2), ("hard", 0)
    ]  # fmt: skip
    runs, _, datasets, folders = zip(*(one.score.args for one in found), strict=True)
    assert [run.test.top for run in runs] == [10, 3, 10]
    names = [[video.name for video in dataset.videos] for dataset in datasets]
    assert [(len(one), one[0]) for one in names] == [
        (2, "easy_val_0_00000"), (1, "easy_test_0_00000"), (5, "hard_val_0_00000")
    ]  # fmt: skip
    assert [folder.name for folder in folders] == ["evaluation", "small", "hard"]
    with pytest.raises(ValueError, match=r"test\.split: expected the categories of"):
        evaluations_of(config, categories[:1], str(tmp_path))


@pytest.mark.parametrize("name", ["../up", "step_4", "", "a/b", "4"])
def test_the_name_of_an_evaluation_is_that_of_a_folder(name):
    with pytest.raises(ValueError, match="evals: expected names that begin with"):
        recipe("ifr_shapes", "debug", {"evals": {name: {}}})


def test_a_run_with_other_classes_is_left_alone(folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "categories.json").write_text('[{"id": 1, "name": "cat"}]')
    message = train_error(folder, run)
    expected = "expected the categories of the training data, such as (1, 'disc')"
    assert message == f"{run / 'categories.json'}: {expected}, got (1, 'cat')"
    assert [path.name for path in run.iterdir()] == ["categories.json"]


def test_processes_wait_for_the_one_that_evaluates():
    code = """
import os, sys, time
from vis_jax.training.distributed import initialise_distributed, wait_for_all
index = int(sys.argv[2])
os.environ["VIS_JAX_COORDINATOR"] = sys.argv[1]
os.environ["VIS_JAX_NUM_PROCESSES"] = "2"
os.environ["VIS_JAX_PROCESS_ID"] = str(index)
initialise_distributed()
for step in range(2):
    wait_for_all(f"before {step}")
    time.sleep(0 if index else 1)
    came = time.monotonic()
    wait_for_all(f"after {step}")
    print(came, time.monotonic())
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [sys.executable, "-c", code, address]
    processes = [
        subprocess.Popen([*words, str(i)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    # By one clock of the machine: nobody goes on before all are there.
    first, second = (
        [list(map(float, line.split())) for line in output.splitlines()]
        for output in outputs
    )
    assert len(first) == len(second) == 2
    for (came, gone), (other_came, other_gone) in zip(first, second, strict=True):
        assert max(came, other_came) <= min(gone, other_gone)


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        ("10", "expected first,last such as 10,20, got 10"),
        ("2,x", "expected first,last such as 10,20, got 2,x"),
        ("3,2", "expected first,last such as 10,20, got 3,2"),
        ("0,2", "expected first,last such as 10,20, got 0,2"),
        ("5,6", "expected updates of the run, which has 4, got 5,6"),
    ],
)
def test_updates_to_profile_that_cannot_be_are_named(tmp_path, updates, expected):
    words = ("--config", "configs/ifr_shapes.py:debug", "--profile", updates)
    message = error_of("train", "--workdir", tmp_path / "run", *words)
    assert message == f"--profile: {expected}"
    assert not (tmp_path / "run").exists()
