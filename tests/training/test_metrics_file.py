"""metrics.jsonl of runs that are stopped, killed and started again."""

import json
import math

import pytest

from tests.stand_in_bucket import Bucket
from vis_jax.training.metrics_file import METRICS_FILE, MetricsFile, read_metrics


def write(workdir, *lines):
    """One process of a run: (step, name, value) each; returns all lines of the file."""
    file = MetricsFile(str(workdir))
    for step, name, value in lines:
        file.scalars(step, {name: value})
    file.close()
    return lines_of(workdir / METRICS_FILE)


def lines_of(path):
    lines = read_metrics(path)
    return [(one["step"], *list(one.items())[2]) for one in lines]


def test_a_killed_run_leaves_no_line_twice(tmp_path):
    before = [(step, "train/loss", step / 10) for step in (10, 20, 30)]
    assert write(tmp_path, *before, (20, "eval/AP", 1.0)) == [
        *before, (20, "eval/AP", 1.0)
    ]  # fmt: skip
    # From the checkpoint of step 20, whose evaluation comes again, then step 30.
    again = [(20, "eval/AP", 2.0), (30, "train/loss", 7.0), (30, "eval/AP", 3.0)]
    assert write(tmp_path, *again) == [*before[:2], *again]
    # A run that is finished evaluates its last step again.
    last = [(30, "eval/AP", 3.0), (30, "eval_small/AP", 4.0)]
    for _ in range(2):
        assert write(tmp_path, *last) == [
            *before[:2], again[0], (30, "train/loss", 7.0), *last
        ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_a_line_that_is_cut_off_goes(tmp_path):
    write(tmp_path, (10, "train/loss", 1.0), (20, "train/loss", math.inf))
    path = tmp_path / METRICS_FILE
    assert json.loads(path.read_text().splitlines()[1])["train/loss"] is None
    path.write_bytes(path.read_bytes()[:-9])
    assert lines_of(path) == [(10, "train/loss", 1.0)]
    assert write(tmp_path, (20, "train/loss", 2.0)) == [
        (10, "train/loss", 1.0), (20, "train/loss", 2.0)
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["{", "[]", '{"step": "x"}', "[" * 100_000, "\0"])
def test_damage_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / METRICS_FILE
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=rf"{METRICS_FILE}, line 2: "):
        write(tmp_path, (4, "train/loss", 1.0))


def test_a_full_disk_names_the_file(tmp_path):
    file = MetricsFile(str(tmp_path))
    (tmp_path / METRICS_FILE).mkdir()
    with pytest.raises(OSError) as caught:
        file._append("x")
    assert caught.value.filename == str(tmp_path / METRICS_FILE)
    with pytest.raises(OSError) as caught:
        file._write_all()
    assert caught.value.filename == str(tmp_path / METRICS_FILE)
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_a_bucket_has_the_file_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    path = tmp_path / "run" / METRICS_FILE
    file = MetricsFile("bucket://run")
    for step in (1, 2):
        file.scalars(step, {"train/loss": 1.0})
    file.close()
    file = MetricsFile("bucket://run")
    file.scalars(2, {"train/loss": 3.0})
    file.close()
    assert lines_of(path) == [(1, "train/loss", 1.0), (2, "train/loss", 3.0)]
