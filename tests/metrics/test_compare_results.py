"""Resampled scores are those of files in which the drawn videos stand as often."""

import json

import numpy as np
import pytest

from tests.metrics.scenes import prediction, random_files, rows, track, truth_file
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.main import main
from vis_jax.metrics import bootstrap
from vis_jax.metrics.bootstrap import draw, identity_samples, precision_samples
from vis_jax.metrics.compare_results import (
    METRICS,
    Sampling,
    compare,
    format_comparison,
)
from vis_jax.metrics.tracking import identity_measures, pool, three
from vis_jax.metrics.video_ap import AREAS, accumulate, evaluate, summarise

MASKS = rows(8, 8, 8, 8)
PARTS = [MASKS[0], None, MASKS[0], MASKS[0]]


def test_every_sample_has_as_many_videos_and_only_the_seed_changes_it():
    counts = draw(30, 200, 1)
    assert counts.shape == (200, 30) and (counts.sum(1) == 30).all()
    assert np.array_equal(counts, draw(30, 200, 1))
    assert not np.array_equal(counts, draw(30, 200, 2))
    assert counts.mean(0) == pytest.approx(1, abs=0.4)
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


def repeated(matches, videos, counts):
    """The numbers of a data set in which each video stands as often as it is drawn."""
    found = [
        [m for v in videos if v in row for m in [row[v]] * counts[videos.index(v)]]
        for row in matches.values()
    ]
    first = [
        [m._replace(**{k: getattr(m, k)[:1] for k in m._fields[1:]}) for m in row]
        for row in found
    ]
    return summarise(accumulate(first, 1), AREAS[:1])


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_samples_are_scored_as_files_with_the_videos_repeated(block, monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", block)
    defined = 0
    for seed in range(12):
        content, entries = random_files(seed, odd=False)
        for place, entry in enumerate(entries):
            entry["score"] -= 1e-6 * place  # no ties: copies of one stand together
        truth = parse_truth(content)
        results = parse_results(entries, truth)
        videos = sorted(truth.videos)
        counts = draw(len(videos), 5, seed)
        found = evaluate(truth, results)
        samples = precision_samples(found.matches, videos, counts)
        measures = identity_measures(truth, results)
        kept = identity_samples(measures, videos, counts)
        for s, row in enumerate(counts.tolist()):
            expected = repeated(found.matches, videos, row)
            drawn = [v for v, n in zip(videos, row, strict=True) for _ in range(n)]
            copies = {i: measures[v] for i, v in enumerate(drawn)}
            expected |= three(pool(copies))
            for name, values in (samples | kept).items():
                if expected[name] is None:
                    assert np.isnan(values[s]), (seed, name)
                else:
                    assert values[s] == pytest.approx(expected[name], abs=1e-12)
                    defined += 0 < expected[name] < 1
    assert defined > 50


@pytest.fixture
def files(tmp_path):
    """Eight videos with one track each, found whole by B and often in part by A."""
    tracks = [track(v, MASKS, video=v, category=1 + v % 2) for v in range(1, 9)]
    better = [prediction(0.9, MASKS, video=v, category=1 + v % 2) for v in range(1, 9)]
    worse = [
        prediction(0.9, PARTS if v % 3 else MASKS, video=v, category=1 + v % 2)
        for v in range(1, 9)
    ]
    truth = truth_file(tracks, lengths=(4,) * 8)
    paths = []
    for name, content in dict(truth=truth, a=worse, b=better).items():
        paths.append(str(tmp_path / f"{name}.json"))
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return paths


def test_two_files_are_compared_on_the_same_samples(files, tmp_path):
    truth, a, b = files
    output = tmp_path / "compare.json"
    report = compare(truth, [a, b, a], output, sampling=Sampling(200, 3))
    assert json.loads(output.read_text()) == report
    assert (report["videos"], report["samples"], report["seed"]) == (8, 200, 3)
    first, second, third = report["files"]
    assert second["AP"]["value"] == pytest.approx(1) == second["AP"]["low"]
    for name in METRICS:
        cell = first[name]
        assert cell["low"] - 1e-9 <= cell["value"] <= cell["high"] + 1e-9
        assert "difference" not in cell
        same = third[name]["difference"]
        assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
        assert same["better"] == 0.5
    gain = second["AP"]["difference"]
    assert 0 < gain["low"] < gain["value"] < gain["high"] and gain["better"] > 0.95
    assert compare(truth, [a, b], sampling=Sampling(200, 3))["files"] == [first, second]
    other = compare(truth, [a, b], sampling=Sampling(200, 4))["files"][0]
    assert other["AP"]["low"] != first["AP"]["low"] or other["AP"] != first["AP"]
    table = format_comparison(report)
    assert "95 % intervals of 200 samples of the 8 videos, seed 3" in table
    assert "100.0 [100.0, 100.0]" in table and "50 %" in table
    assert len({len(line) for line in table.splitlines()[5:]}) == 1  # aligned


def test_the_command_takes_files_as_words(files, capsys):
    truth, a, b = files
    assert main(["score", "--truth", truth, a, b, "--samples=50"]) == 0
    out = capsys.readouterr().out
    assert f"B  {b}" in out and "B - A" in out and "50 samples" in out
    assert main(["score", f"--truth={truth}", a]) == 0
    alone = capsys.readouterr().out
    assert main(["score", f"--truth={truth}", f"--results={a}"]) == 0
    assert capsys.readouterr().out == alone
    for words, message in (
        (["--tracking", a, b], "--tracking: expected with one results file"),
        (["--truth_long", truth, a, b], "--truth_long: expected with one results"),
        (["--samples=9", a], "--samples: expected with several results files"),
        (["--samples=0", a, b], "samples: expected at least 1, got 0"),
        (["--output=none/x", a, b], "output: expected a file in an existing folder"),
        ([], "--results: expected a JSON file, got none"),
    ):
        assert main(["score", "--truth", truth, *words]) == 2
        assert message in capsys.readouterr().err
