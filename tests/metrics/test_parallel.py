"""Any number of processes gives the same report, or the same error."""

import json

import pytest

from tests.metrics.scenes import prediction, random_files, rows, track, truth_file
from vis_jax.formats.json_checks import FormatError
from vis_jax.metrics import parallel
from vis_jax.scoring import Options, score

MASKS = rows(8, 8, None, 8)
EVERYTHING = Options(tracking=True, per_video=True, per_category=True)


@pytest.fixture
def inside(monkeypatch):
    """Small files are divided, and the other processes are calls in this one."""
    monkeypatch.setattr(parallel, "MIN_BYTES", 1)

    class Ended:
        def __init__(self, job, part):
            truth = parallel.load_truth(job.truth, official_quirks=job.official_quirks)
            self.found = parallel._find_part(job, truth, part)

        stdout = None
        kill = wait = lambda self: None

    monkeypatch.setattr(parallel, "_start", Ended)
    monkeypatch.setattr(parallel, "_result", lambda process: process.found)


def write(folder, truth, results):
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def test_the_report_does_not_depend_on_the_number_of_processes(
    inside, tmp_path, monkeypatch
):
    calls, find = [], parallel.Workers.find
    monkeypatch.setattr(
        parallel.Workers, "find", lambda *args: calls.append(find(*args)) or calls[-1]
    )
    for seed in range(16):
        truth, entries = random_files(seed, odd=seed % 2 == 1)
        if seed % 4:
            entries.sort(key=lambda entry: entry["video_id"])
        paths = write(tmp_path, truth, entries)
        options = EVERYTHING._replace(tracking=seed % 3 > 0)
        reports = []
        for workers in (1, 2, 5):
            score(*paths, tmp_path / "scores.json", options=options, workers=workers)
            reports.append((tmp_path / "scores.json").read_bytes())
        assert reports[0] == reports[1] == reports[2], seed
    assert 10 < sum(found is not None for found in calls) < 32


def test_real_processes_send_what_they_find_or_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_BYTES", 1)
    tracks = [track(v, MASKS, video=v) for v in (1, 2)]
    truth = truth_file(tracks, lengths=(4, 4))
    entries = [prediction(0.9, MASKS), prediction(0.8, MASKS, video=2)]
    paths = write(tmp_path, truth, entries)
    one = score(*paths, options=EVERYTHING, workers=1)
    assert score(*paths, options=EVERYTHING, workers=2) == one
    assert one["AP"] == pytest.approx(1)
    entries[1]["segmentations"][1] = {"size": [4, 10], "counts": "9"}
    paths = write(tmp_path, truth, entries)
    message = "entry 1: segmentations.1.: counts: expected counts that add up to 40"
    for workers in (1, 2):
        with pytest.raises(FormatError, match=message):
            score(*paths, workers=workers)


def test_a_process_that_ends_early_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_BYTES", 1)
    monkeypatch.setattr(parallel.sys, "executable", "/bin/false")
    tracks = [track(v, MASKS, video=v) for v in (1, 2)]
    truth = truth_file(tracks, lengths=(4, 4))
    entries = [prediction(0.9, MASKS), prediction(0.8, MASKS, video=2)]
    paths = write(tmp_path, truth, entries)
    with pytest.raises(ValueError, match="to end with code 0, got 1; --workers 1"):
        score(*paths, workers=2)
