"""Runs in a bucket; tests/test_end_to_end.py has the commands with a whole model."""

import json
from pathlib import Path

import numpy as np
import pytest

import vis_jax
from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.datasets.remote_root import local_root
from data_pipeline.errors import DataError
from tests.command_line import error_of
from tests.predict.squares import names_in
from tests.recipes import recipe
from tests.stand_in_bucket import Bucket
from tests.training.toy_run import Recorder
from tests.training.toy_system import toy_batches, toy_config, toy_system
from vis_jax import paths
from vis_jax.paths import written_locally
from vis_jax.predict.staging import check_output
from vis_jax.training.best import Best
from vis_jax.training.checkpoint import load_variables
from vis_jax.training.evaluations import Evaluation
from vis_jax.training.loop import train
from vis_jax.training.profile import ProfileWindow

CONFIG = str(Path(__file__).parents[2] / "configs" / "ifr_shapes.py") + ":debug"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder of bucket://; the working directory is another, and stays empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(Bucket, "folder", tmp_path / "bucket", raising=False)
    yield tmp_path / "bucket"
    assert list(here.iterdir()) == []


def score(variables, step):
    return {"AP": float(step)}


def run(workdir, *, writer=None, window=None, **changes):
    return train(
        toy_config(**changes), toy_system(), toy_batches, workdir, writer=writer,
        evaluations=[Evaluation("", 1, score)], window=window,
    )  # fmt: skip


def test_a_run_in_a_bucket_goes_on(bucket, tmp_path):
    best = {"train.best": "AP"}
    run("bucket://runs/one", num_steps=2, window=ProfileWindow(1, 1), **best)
    workdir = bucket / "runs" / "one"
    assert sorted(path.name for path in workdir.iterdir()) == [
        "best", "checkpoints", "config.json", "metrics.jsonl", "profile", "tensorboard",
    ]  # fmt: skip
    assert next((workdir / "tensorboard").glob("events.*")).stat().st_size > 0
    assert list((workdir / "profile").rglob("*.xplane.pb"))
    recorder = Recorder()
    state = run("bucket://runs/one", num_steps=4, writer=recorder, **best)
    assert sorted(recorder.losses) == [3, 4]
    record = json.loads((workdir / "best" / "best.json").read_text())
    assert record == {"metric": "AP", "value": 4.0, "step": 4}
    expected = run(str(tmp_path / "local"), num_steps=4, writer=Recorder())
    np.testing.assert_array_equal(
        state.variables["params"]["head"]["kernel"],
        expected.variables["params"]["head"]["kernel"],
    )


def test_the_best_checkpoint_is_published_again_after_a_kill(bucket):
    """A folder in a bucket cannot be renamed: its files are copied one by one."""
    made, found = bucket / "best.tmp", bucket / "best"
    made.mkdir(parents=True)
    (made / "weights").write_text("new")
    Best("bucket://", "AP", {"": ()})
    assert not found.exists()  # not whole: the record comes last
    (made / "best.json").write_text('{"metric": "AP", "value": 0.5}')
    found.mkdir()  # the copy had begun
    (found / "old").write_text("old")
    assert not Best("bucket://", "AP", {"": ()}).offer(3, {"AP": 0.5})
    assert (found / "weights").read_text() == "new"
    assert not (found / "old").exists()
    assert not made.exists()


def test_results_in_a_bucket_are_not_replaced_unasked(bucket):
    (bucket / "found").mkdir(parents=True)
    (bucket / "found" / "results.json").touch()
    words = ("predict", "--workdir", "bucket://run", "--source", "clip.mp4")
    message = error_of(*words, "--output", "bucket://found")
    assert message == "bucket://found: not empty; pass overwrite to replace results"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("train", "--config", CONFIG, "--workdir", "ftp://a/b"),
            "--workdir: expected a folder on a disk or of gs://, s3:// or az://,"
            " got ftp://a/b",
        ),
        (
            ("--config", CONFIG, "--workdir=ftp://a/b"),
            "--workdir: expected a folder on a disk or of gs://, s3:// or az://,"
            " got ftp://a/b",
        ),
        (
            ("score", "--truth", "bucket://t.json", "--results", "r.json"),
            "--truth: expected a path on a disk, got bucket://t.json",
        ),
        (
            ("data", "check", "--root=bucket://data"),
            "--root: expected a path on a disk, got bucket://data",
        ),
        (
            ("compare", "--workdir", "bucket://run", "--output", "bucket://out"),
            "--output: expected a path on a disk, got bucket://out",
        ),
        (
            ("--config", CONFIG, "--config.data.stills.root=bucket://coco"),
            "--config.data.stills.root: expected a path on a disk, got bucket://coco",
        ),
    ],
)
def test_a_flag_that_needs_a_disk_is_named(bucket, words, expected):
    assert error_of(*words) == expected


def test_an_address_that_nothing_reads_is_named_by_python_functions_too():
    expected = "expected a folder on a disk or of gs://, .*, got ftp://a"
    with pytest.raises(ValueError, match=f"path: {expected}"):
        vis_jax.load("ftp://a")
    with pytest.raises(ValueError, match=f"workdir: {expected}"):
        vis_jax.train({}, "ftp://a")


def packed(folder, split="train"):
    """The files of a packed split, which nothing reads here."""
    for part in ("vis_frames", "vis_videos"):
        place = folder / split / part / "1.0.0"
        place.mkdir(parents=True)
        (place / "records").write_text(part)


def test_a_packed_data_set_is_copied_from_a_bucket_once(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed(bucket / "set")
    found = Path(local_root("bucket://set", "train"))
    assert found.is_relative_to(tmp_path / "cache" / "vis_jax" / "data")
    records = found / "train" / "vis_frames" / "1.0.0" / "records"
    assert records.read_text() == "vis_frames"
    assert sorted(path.name for path in found.iterdir()) == ["train"]
    (bucket / "set/train/vis_frames/1.0.0/records").write_text("changed")
    assert local_root("bucket://set", "train") == str(found)
    assert records.read_text() == "vis_frames"
    assert local_root("/data/set", "train") == "/data/set"


def test_a_copy_that_breaks_off_leaves_nothing(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (bucket / "set" / "train" / "vis_videos").mkdir(parents=True)  # and no frames
    with pytest.raises(FileNotFoundError):
        local_root("bucket://set", "train")
    (home,) = (tmp_path / "cache" / "vis_jax" / "data").iterdir()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "coco"])
def test_a_data_set_in_a_bucket_that_is_not_packed_is_refused(bucket, name):
    (bucket / "set" / "train" / "JPEGImages").mkdir(parents=True)
    settings = recipe("ifr_r50", None, {"data.name": name, "data.root": "bucket://set"})
    with pytest.raises(DataError, match="bucket://set.*data.root: expected"):
        make_dataset(settings.data)


def test_what_is_written_locally_reaches_a_bucket_only_if_it_is_complete(bucket):
    with pytest.raises(RuntimeError), written_locally("bucket://a") as folder:
        folder.mkdir()
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not (bucket / "a").exists()
    with written_locally("bucket://a") as folder:
        (folder / "c").mkdir(parents=True)
        for name in ("b", "c/d"):
            (folder / name).write_text(name)
    assert (bucket / "a" / "b").read_text() == "b"
    assert (bucket / "a" / "c" / "d").read_text() == "c/d"
    assert names_in(bucket / "a") == ["b", "c"]


def test_a_copy_to_a_bucket_that_breaks_off_can_be_repeated(bucket, monkeypatch):
    """Other files of the folder stay, unless all are to be replaced."""
    (bucket / "a").mkdir(parents=True)
    for name in ("old", "mine"):
        (bucket / "a" / name).touch()

    def write(**replaced):
        with written_locally("bucket://a", **replaced) as folder:
            folder.mkdir()
            (folder / "new").touch()

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(paths, "copy_folder", full)
        write(replaced=["old"])
    assert names_in(bucket / "a") == [paths.INCOMPLETE, "mine"]
    assert paths.is_incomplete("bucket://a")
    check_output("bucket://a", overwrite=False)
    with pytest.raises(ValueError, match=r"^bucket://a: expected a complete folder"):
        load_variables("bucket://a")
    write(replaced=["old", "new"])
    assert names_in(bucket / "a") == ["mine", "new"]
    with pytest.raises(ValueError, match="not empty"):
        check_output("bucket://a", overwrite=False)
    write(replaced=None)
    assert names_in(bucket / "a") == ["new"]
