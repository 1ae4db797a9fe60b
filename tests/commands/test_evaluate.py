import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from tests.command_line import call, error_of
from tests.evaluate.test_loop import FILES, Model, left
from tests.recipes import recipe
from tests.stand_in_bucket import Bucket
from tests.test_settings import Disc
from vis_jax.commands import parts, processes, saved_model
from vis_jax.commands.evaluate import check_seen_by_all, fingerprint
from vis_jax.commands.saved_model import SavedModel
from vis_jax.evaluate import infer
from vis_jax.evaluate.shares import PARTIAL
from vis_jax.training.run_config import write_config

VIDEOS = ("--config.data.shapes.num_videos=4", "--config.test.videos=4")


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Words that evaluate a model, which needs no checkpoint, into bucket://out."""
    monkeypatch.setattr(Bucket, "folder", tmp_path / "bucket", raising=False)
    config = recipe("ifr_shapes", "debug")
    model = SavedModel(config, (), None, {})
    monkeypatch.setattr(saved_model, "make_model", lambda *_: model)
    monkeypatch.setattr(parts, "keep_compilations", lambda workdir: None)
    monkeypatch.setattr(infer, "make_streams", lambda *_: [Model()])
    run = tmp_path / "run"
    run.mkdir()
    write_config(config, str(run))
    shapes = [f"--config.data.shapes.{name}" for name in ("height=32", "width=48")]
    videos = (*shapes, "--config.data.shapes.length=2", *VIDEOS)
    return ("evaluate", "--workdir", run, *videos)


def test_shards_in_a_bucket_merge_to_the_files_of_one_process(
    words, tmp_path, monkeypatch
):
    outcome = call(*words, "--output", tmp_path / "whole")
    assert outcome.code == 0, outcome
    words, folder = (*words, "--output", "bucket://out"), tmp_path / "bucket" / "out"
    outcome = call(*words, "--shard=2/2")
    assert outcome.code == 0, outcome
    first, second = (f"results.partial-{number}-of-2.jsonl" for number in (1, 2))
    assert outcome.out.splitlines()[-1] == f"partial       {folder / second}"
    assert left(folder) == [second]
    message = error_of(*words, "--merge")
    assert message == f"{folder}: expected 2 finished shares, got 1: missing 1"

    # One that was stopped goes on with what it has kept.
    monkeypatch.setattr(infer, "make_streams", lambda *_: [Stopping()])
    assert call(*words, "--shard=1/2").code == 130
    assert left(folder) == [first, second]
    message = error_of(*words, "--merge")
    assert message.endswith("got 1: unfinished 1 (1 of 2 videos)")
    model = Model()
    monkeypatch.setattr(infer, "make_streams", lambda *_: [model])
    assert call(*words, "--shard=1/2").code == 0
    assert model.asked == 1

    (folder / "results.partial-1-of-3.jsonl").write_text('{"run_id": "other"}\n')
    message = error_of(*words, "--merge")
    assert message.startswith(f"{folder / first}: expected a share by 3")
    (folder / "results.partial-1-of-3.jsonl").unlink()
    assert call(*words, "--merge").code == 0
    assert left(folder) == left(tmp_path / "whole") == FILES
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_one_process_goes_on_in_a_bucket_and_reports(words, tmp_path, monkeypatch):
    words, folder = (*words, "--output", "bucket://out"), tmp_path / "bucket" / "out"
    monkeypatch.setattr(infer, "make_streams", lambda *_: [Stopping()])
    assert call(*words).code == 130
    assert left(folder) == [PARTIAL]
    model, page = Model(), tmp_path / "page.html"
    monkeypatch.setattr(infer, "make_streams", lambda *_: [model])
    outcome = call(*words, "--report", page)
    assert outcome.code == 0, outcome
    assert model.asked == 3
    assert left(folder) == FILES
    assert page.read_text().startswith("<!doctype html>")


class Stopping(Model):
    """Is stopped at its second video."""

    def __call__(self, frames, **clock):
        if self.asked:
            raise KeyboardInterrupt
        return super().__call__(frames, **clock)


class Processes:
    """Two threads, which stand in for processes of JAX."""

    def __init__(self):
        self._own, self._told = threading.local(), {}
        self._barrier = threading.Barrier(2, timeout=30)

    def index(self):
        return self._own.index

    def all_texts(self, name, texts):
        self._told[name, self.index()] = texts
        self._barrier.wait()
        return [text for index in range(2) for text in self._told[name, index]]

    def run(self, index, folder):
        self._own.index = index
        check_seen_by_all(folder)


def test_a_folder_that_processes_do_not_share_is_named_by_all(tmp_path, monkeypatch):
    two = Processes()
    monkeypatch.setattr(jax, "process_index", two.index)
    monkeypatch.setattr(processes, "all_texts", two.all_texts)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(two.run, (0, 1), [tmp_path / "a"] * 2)) == [None, None]
        ends = [pool.submit(two.run, i, tmp_path / "ab"[i]) for i in (0, 1)]
    expected = "folder that all processes share, got .*, where process 1 on .* cannot"
    for end in ends:
        with pytest.raises(ValueError, match=expected):
            end.result()
    assert not [*tmp_path.glob("*/*")]


def test_the_fingerprint_is_of_settings_names_and_values():
    config = Disc(radius=1)
    tree = {"params": {"x": np.arange(4.0), "y": np.float32(1)}}
    same = {"params": {"y": np.float32(1), "x": np.arange(4.0)}}
    assert fingerprint(config, tree) == fingerprint(Disc(radius=1), same)
    others = [
        {"params": {"x": np.arange(4.0) + 1, "y": np.float32(1)}},
        {"params": {"x": np.arange(4.0).reshape(2, 2), "y": np.float32(1)}},
        {"params": {"z": np.arange(4.0), "y": np.float32(1)}},
    ]
    digests = {fingerprint(config, other) for other in [tree, *others]}
    assert len(digests | {fingerprint(Disc(radius=2), tree)}) == 5
