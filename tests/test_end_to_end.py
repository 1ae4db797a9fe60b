"""A shrunk config through the commands: train, evaluate, score, go on, predict.

One training serves all tests; its folder is copied where a test changes it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from data_pipeline.datasets.first_videos import FirstVideos
from tests import kept_programs
from tests.command_line import call, error_of
from tests.commands.folder import config_words, cut, write_folder
from tests.compilations import count_compilations
from tests.report.scene import content_in
from tests.stand_in_bucket import Bucket
from tests.trained_run import (
    PROGRAMS,
    STEPS,
    before_the_end,
    cached_programs,
    forget_programs,
    losses,
    programs,
)
from vis_jax.params import flatten
from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sources import open_source
from vis_jax.training.checkpoint import load_variables

ROOT = Path(__file__).parents[1]
KEPT = kept_programs.FOLDER / "end_to_end"
CONFIG = "configs/ifr_shapes.py:debug"
# Eight clips for eight devices; one layer less to compile.
SETTINGS = ("--config.data.batch_size=8", "--config.model.mask_decoder.layers=1")
PICTURES = "--config.train.image_every=4"
FILES = {"results.json", "scores.json", "truth.json"}


@pytest.fixture(scope="module", autouse=True)
def own_compilation_cache(tmp_path_factory):
    """The commands keep compiled programs in the run's folder, as they do for users."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_enable_xla_caches",
    )
    before = {name: getattr(jax.config, name) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_COMPILATION_CACHE_DIR")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        forget_programs()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    forget_programs()


@pytest.fixture(scope="module")
def trained(own_compilation_cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("end_to_end") / "run"
    # Programs that training compiled in earlier runs of the tests, and nothing else.
    kept_programs.copy(KEPT, workdir / "compilation_cache")
    with count_compilations() as names:
        outcome = call("--config", CONFIG, "--workdir", workdir, *SETTINGS, PICTURES)
    assert outcome.code == 0, outcome
    kept_programs.copy(workdir / "compilation_cache", KEPT)
    kept_programs.limit(KEPT, most=100_000_000)
    return workdir, outcome, names


@pytest.fixture(scope="module")
def workdir(trained):
    return trained[0]


@pytest.fixture(scope="module")
def evaluated(workdir, tmp_path_factory):
    """An evaluation of the test split, and what it compiled."""
    output = tmp_path_factory.mktemp("evaluated") / "test"
    cached = cached_programs(workdir)
    forget_programs()
    with count_compilations() as names:
        outcome = evaluate(workdir, output)
    assert outcome.code == 0, outcome
    return output, names, cached_programs(workdir) - cached


def evaluate(workdir, output, *words):
    words = ("--config.test.split=test", *words)
    return call("evaluate", "--workdir", workdir, "--output", output, *words)


def test_training_compiles_every_program_once(trained):
    _, _, names = trained
    assert programs(names) == PROGRAMS


def test_training_reports_every_step_and_the_scores(trained):
    _, outcome, _ = trained
    for step in range(1, STEPS + 1):
        assert f"step {step}/{STEPS}  loss " in outcome.err
    assert "HOTA" in outcome.out
    lines = outcome.out.splitlines()
    assert re.fullmatch(r"data          [\d,]+ videos, 8 classes: .* s", lines[2])
    for name in ("first batch", "parameters", "first update"):
        assert re.search(rf"^{name} +done in \d+\.\d s", outcome.err, re.MULTILINE)
    noise = [word for word in ("WARNING", "oneDNN", "absl") if word in outcome.err]
    assert not noise


def test_training_leaves_a_whole_run(workdir):
    found = {path.name for path in workdir.iterdir()}
    files = {"categories.json", "config.json", "checkpoints", "evaluation"}
    assert found == files | {
        "tensorboard", "compilation_cache", "metrics.jsonl", "run.lock"
    }  # fmt: skip
    assert {path.name for path in (workdir / "evaluation").iterdir()} == {"step_4"}
    assert {path.name for path in (workdir / "evaluation/step_4").iterdir()} == FILES
    assert set(losses(workdir)) == {2, 4}
    events = b"".join(p.read_bytes() for p in (workdir / "tensorboard").iterdir())
    assert all(tag in events for tag in (b"train/loss", b"eval/AP", b"clip"))


def test_an_evaluation_reads_what_training_compiled(evaluated):
    output, names, new = evaluated
    assert programs(names) == ["step", "upsample"]
    assert not new
    assert {path.name for path in output.iterdir()} == FILES


def test_score_gives_the_numbers_of_the_evaluation(evaluated, tmp_path):
    output, _, _ = evaluated
    words = ("--truth", output / "truth.json", "--results", output / "results.json")
    more = ("--tracking", "--per_category", "--per_video")
    outcome = call("score", *words, *more, "--output", tmp_path / "scores.json")
    assert outcome.code == 0
    scores = json.loads((output / "scores.json").read_text())
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert scores["TP"] + scores["FN"] > 0


def test_a_stopped_evaluation_goes_on(workdir, evaluated, tmp_path, monkeypatch):
    expected, _, _ = evaluated
    output = tmp_path / "test"
    read, asked = FirstVideos.read_frames, []

    def stop_at_the_second(dataset, index, frame_ids):
        if index == 1:
            raise KeyboardInterrupt
        return read(dataset, index, frame_ids)

    def note(dataset, index, frame_ids):
        asked.append(index)
        return read(dataset, index, frame_ids)

    monkeypatch.setattr(FirstVideos, "read_frames", stop_at_the_second)
    assert evaluate(workdir, output).code == 130
    assert [path.name for path in output.iterdir()] == ["results.partial.jsonl"]
    stopped = shutil.copytree(output, tmp_path / "other")

    monkeypatch.setattr(FirstVideos, "read_frames", note)
    assert evaluate(workdir, output).code == 0
    assert asked == [1]
    assert {path.name for path in output.iterdir()} == FILES
    for name in FILES:
        assert (output / name).read_bytes() == (expected / name).read_bytes()

    # Other settings, or the other checkpoint, make it another evaluation.
    asked.clear()
    checkpoint = ("--checkpoint", workdir / "checkpoints" / "2")
    assert evaluate(workdir, stopped, *checkpoint).code == 0
    assert asked == [0, 1]


def test_shards_of_an_evaluation_merge_to_its_files(workdir, evaluated, tmp_path):
    expected, _, _ = evaluated
    output = tmp_path / "test"
    outcome = evaluate(workdir, output, "--shard", "2/2")
    assert outcome.code == 0, outcome
    partial = output / "results.partial-2-of-2.jsonl"
    assert outcome.out.splitlines() == [
        "videos        2 in 2 shares; by frames the largest is 1.000 of the mean",
        f"partial       {partial}",
    ]
    words = ("evaluate", "--workdir", workdir, "--output", output)
    words = (*words, "--config.test.split=test")
    message = error_of(*words, "--merge")
    assert message == f"{output}: expected 2 finished shares, got 1: missing 1"
    message = error_of(*words, "--shard", "1/3")
    assert message.startswith(f"{partial}: expected a share by 3, as the others are")
    message = error_of(*words, "--merge", "--shard", "1/2")
    assert message.startswith("--merge: expected it alone")

    message = error_of(*words, "--shard", "1/2", "--report", tmp_path / "page.html")
    assert message.startswith("--report: expected it with --merge")
    message = error_of(*words, "--report", tmp_path / "none" / "page.html")
    assert message.startswith("--report: expected a file in an existing folder")

    assert evaluate(workdir, output, "--shard", "1/2").code == 0
    outcome = evaluate(workdir, output, "--merge", "--report", tmp_path / "page.html")
    assert outcome.code == 0, outcome
    assert len(content_in(tmp_path / "page.html")["videos"]) == 2
    assert "HOTA" in outcome.out
    assert {path.name for path in output.iterdir()} == FILES
    for name in FILES:
        assert (output / name).read_bytes() == (expected / name).read_bytes()


def test_a_full_disk_loses_no_checkpoint_and_the_run_goes_on(
    workdir, tmp_path, monkeypatch
):
    half = before_the_end(workdir, tmp_path)
    cached = cached_programs(half)
    forget_programs()

    def save(*unused, **unused_too):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", save)
        outcome = call("--workdir", half)
    assert outcome.code == 2
    message = outcome.err.splitlines()[-1]
    assert message.startswith("error: step 4: cannot write the checkpoint: no space")
    assert set(losses(half)) == {2}

    outcome = call("--workdir", half)
    assert outcome.code == 0
    steps = [line.split()[1] for line in outcome.err.splitlines() if "loss" in line]
    assert steps == ["3/4", "4/4"]
    # A checkpoint is put on the devices by programs that a new run has no need of.
    assert not programs(cached_programs(half) - cached)
    unbroken, resumed = (flatten(load_variables(path)) for path in (workdir, half))
    assert unbroken.keys() == resumed.keys()
    for name, value in unbroken.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    scores = "evaluation/step_4/scores.json"
    assert (half / scores).read_bytes() == (workdir / scores).read_bytes()


@pytest.fixture
def bucket(monkeypatch):
    """A function that makes a path an address, as of a bucket."""
    monkeypatch.setattr(Bucket, "folder", Path("/"), raising=False)
    return lambda path: f"bucket:/{path}"


def test_a_finished_run_is_not_trained_again(workdir, tmp_path, bucket):
    again = shutil.copytree(workdir, tmp_path / "again")
    scores = again / "evaluation" / "step_4" / "scores.json"
    before = scores.read_bytes()
    shutil.rmtree(scores.parent)
    again = bucket(again)
    outcome = call("--workdir", again)
    assert outcome.code == 0
    assert "loss" not in outcome.err
    assert scores.read_bytes() == before  # it is only evaluated
    message = error_of("--workdir", again, "--config.num_steps=3")
    expected = f"at least 4, the updates that the run in {again} has done, got 3"
    assert message == f"num_steps: expected {expected}"


def test_predict_on_a_video_and_on_a_folder(workdir, tmp_path, bucket):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 50, 70, 3), np.uint8)
    (tmp_path / "frames").mkdir()
    with VideoSink(tmp_path / "in.mp4", fps=Fraction(5), height=50, width=70) as video:
        for t, frame in enumerate(frames):
            video.write(frame)
            Image.fromarray(frame).save(tmp_path / f"frames/{t}.png")
    for source, address in (("in.mp4", str), ("frames", bucket)):
        output = tmp_path / f"out_{source}"
        words = ("--source", tmp_path / source, "--output", address(output), "--pngs")
        words = ("--workdir", address(workdir), *words, "--score_threshold=0")
        outcome = call("predict", *words)
        assert outcome.code == 0, outcome
        (line,) = re.findall("^seconds +(.*)$", outcome.out, re.M)
        measured = {part.split()[0] for part in line.split(", ")}
        parts = {"start", "reading", "compiling", "model", "masks"}
        assert measured == parts | {"drawing", "writing"}
        each = r"^ms a frame +[\d.]+ \(3 frames in [\d.]+ s, once compiled\)$"
        assert re.search(each, outcome.out, re.M)
        assert re.search(r"^found +\d+ of \d+ tracks reach 0: ", outcome.out, re.M)
        drawn = open_source(output / "video.mp4")
        assert (len(list(drawn)), drawn.height, drawn.width) == (3, 50, 70)
        results = json.loads((output / "results.json").read_text())
        assert {entry["video_id"] for entry in results} == {1}
        assert {len(entry["segmentations"]) for entry in results} == {3}
        assert len(list((output / "ids").iterdir())) == 3


def test_eight_devices_go_on_with_what_one_has_trained(workdir, tmp_path):
    half = before_the_end(workdir, tmp_path)
    code = """
import sys
import jax
from vis_jax.commands import train
from vis_jax.main import main
assert jax.device_count() == 8
train.evaluate_at = lambda *unused: {}  # one device evaluates in any case
raise SystemExit(main(sys.argv[1:]))
"""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    own = {
        "XLA_FLAGS": flags,
        "JAX_COMPILATION_CACHE_DIR": str(kept_programs.FOLDER),
    }
    # The same batches without TensorFlow, which takes seconds to start.
    words = ("--config.data.loader=numpy", "--accept_changes")
    words += ("--config.mesh.fsdp=4", "--config.mesh.least=64")
    done = subprocess.run(
        [sys.executable, "-c", code, "--workdir", str(half), *words],
        cwd=ROOT,
        env=os.environ | own,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # The loss of step 4 follows from the update that eight devices made in step 3.
    np.testing.assert_allclose(losses(half)[4], losses(workdir)[4], rtol=1e-4)


def test_what_an_evaluation_cannot_use_is_named(workdir, tmp_path):
    output = tmp_path / "out"

    def error(*words):
        words = ("--workdir", workdir, "--output", output, *words)
        message = error_of("evaluate", *words)
        assert not list(output.glob("*.json"))
        return message

    message = error("--config.model.mask_decoder.queries=4")
    assert message.startswith(f"checkpoint {workdir} does not fit the model")
    assert "expected 8, the categories" in error("--config.model.num_classes=5")
    missing = tmp_path / "none"
    assert f"{missing}: no checkpoint" in error("--checkpoint", missing)
    folder = write_folder(tmp_path / "data")
    for path in (folder / "JPEGImages").rglob("*.jpg"):
        cut(path)
    message = error(*config_words(folder))
    assert str(folder / "JPEGImages") in message
    assert "expected a whole image" in message
