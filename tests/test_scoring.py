import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats.json_checks import FormatError
from vis_jax.report.table import format_table
from vis_jax.scoring import METRICS, Options, score, score_short_long

MASKS = rows(8, 8, None, 8)


@pytest.fixture
def files(tmp_path):
    """A truth of two videos, of which one is found."""
    levels = ["slight_occlusion"] * 4
    tracks = [track(v, MASKS, video=v, category=v, occlusion=levels) for v in (1, 2)]
    results = [prediction(0.9, MASKS), prediction(0.8, MASKS, video=2)]
    return write(tmp_path, truth=truth_file(tracks, lengths=(4, 4)), results=results)


def write(folder, **contents):
    paths = []
    for name, content in contents.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def test_writes_what_it_returns(files, tmp_path):
    output = tmp_path / "scores.json"
    everything = Options(
        tracking=True, per_video=True, per_category=True, occlusion=True, errors=True
    )
    report = score(*files, output, options=everything)
    assert json.loads(output.read_text()) == report
    assert report["AP"] == pytest.approx(0.5)
    assert report["AP_SO"] == report["AP_MO"] == pytest.approx(0.5)
    assert report["AP_HO"] is None
    assert [row["AP"] for row in report["categories"]] == [pytest.approx(1), 0]
    assert [row["name"] for row in report["videos"]] == ["clip1", "clip2"]
    assert [row["IDF1"] for row in report["videos"]] == [1, 0]
    assert report["videos"][1]["errors"]["classification"] == 1
    assert report["IDF1"] == 0.5
    assert report["errors"]["lost"]["classification"] == pytest.approx(0.5)


def test_the_table_lists_every_number(files):
    rows = Options(tracking=True, per_video=True, per_category=True)
    report = score(*files, options=rows)
    table = format_table(report)
    for name in ("AP", "AR100", "APl", "HOTA", "IDSW", "category", "worst video"):
        assert name in table.split() or name in table
    assert "50.0" in table
    lines = table.splitlines()
    assert len(lines[0]) == len(lines[1])  # aligned
    assert table.endswith("\n") and not table.endswith("\n\n")


def test_a_missing_folder_is_found_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="output: expected a file in an existing"):
        score("absent.json", "absent.json", tmp_path / "absent" / "scores.json")


def test_plain_scores_are_the_twelve_numbers_and_how_identities_are_kept(files):
    keys = METRICS[:12]
    report = score(*files)
    assert list(report) == [*keys, "IDF1", "AssA", "IDSW", "warnings"]
    every = score(*files, options=Options(tracking=True, per_video=True))
    videos = score(*files, options=Options(per_video=True))["videos"]
    for key in ("IDF1", "AssA", "IDSW"):
        assert report[key] == every[key]
        for row, full in zip(videos, every["videos"], strict=True):
            assert row[key] == full[key]
    few = score(*files, options=Options(identities=False))
    assert list(few) == [*keys, "warnings"]


def test_identities_are_measured_as_tracking_is_told_to(tmp_path):
    truth = truth_file([track(1, MASKS)])
    paths = write(tmp_path, truth=truth, results=[prediction(0.2, MASKS, category=2)])
    told = {"score_threshold": 0.1, "class_aware": False}
    assert score(*paths)["IDF1"] == 0
    assert score(*paths, options=Options(**told))["IDF1"] == 1
    corner = [m if m is None else m & (np.indices(m.shape).sum(0) < 2) for m in MASKS]
    paths = write(tmp_path, truth=truth, results=[prediction(0.9, corner)])
    assert score(*paths)["IDF1"] == 0
    assert score(*paths, options=Options(box_tracking=True))["IDF1"] == 0


def moved(folder, to):
    """A truth of six tracks in three categories, found under other ids."""
    parts = [(k, [np.roll(m, k, 1) for m in rows(4, 4)]) for k in range(6)]
    tracks = [track(k + 1, masks, category=k % 3 + 1) for k, masks in parts]
    truth = truth_file(tracks, lengths=(2,), num_categories=3)
    found = [prediction(0.9, masks, category=to[k % 3]) for k, masks in parts]
    return write(folder, truth=truth, results=found)


@pytest.mark.parametrize(
    ("to", "note"),
    [
        ((0, 1, 2), "shifted: in 6 of 6 tracks found, .* 1 below that of the ground"),
        ((11, 12, 13), "shifted: in 6 of 6 tracks found, .* 10 above that of the"),
        ((2, 1, 3), "exchanged: .* have 2 for 1, 1 for 2 of the ground truth"),
        ((3, 3, 3), None),  # no rule: it knows one category only
    ],
)
def test_ids_of_another_list_of_categories_are_noticed(to, note, tmp_path):
    report = score(*moved(tmp_path, to), options=Options(class_agnostic=True))
    found = report["class_agnostic"]
    assert found["AP"] == found["AP50"] == pytest.approx(1)
    table = format_table(report)
    assert "AP 100.0 and AP50 100.0 if categories are not compared" in table
    if note is None:
        assert found["note"] is None and "warning: category" not in table
    else:
        assert re.search(note, found["note"])
        assert re.search(f"warning: category ids look {note}", table)


def test_categories_are_doubted_only_where_nearly_nothing_is_found(tmp_path):
    assert "class_agnostic" in score(*moved(tmp_path, (4, 5, 9)))
    never = Options(class_agnostic=False)
    assert "class_agnostic" not in score(*moved(tmp_path, (4, 5, 9)), options=never)
    right = moved(tmp_path, (1, 2, 3))
    assert "class_agnostic" not in score(*right)
    asked = score(*right, options=Options(class_agnostic=True))["class_agnostic"]
    assert asked == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "note": None}


def test_the_metrics_are_those_of_a_report_that_are_no_counts(files):
    report = score(*files, options=Options(tracking=True))
    numbers = {k: v for k, v in report.items() if not isinstance(v, int | dict)}
    assert set(METRICS) == set(numbers)
    assert {"TP", "IDSW"} <= set(report)


def test_strict_scoring_refuses_what_the_official_tool_lets_pass(tmp_path):
    truth = truth_file([track(1, MASKS)])
    paths = write(tmp_path, truth=truth, results=[prediction(0.9, MASKS[:2])])
    report = score(*paths)
    assert report["warnings"] == {"results: list shorter than the video": 1}
    assert "warning: results: list shorter" in format_table(report)
    output = tmp_path / "scores.json"
    with pytest.raises(FormatError, match="expected 4 entries, got 2"):
        score(*paths, output, options=Options(official_quirks=False))
    assert not output.exists()


def test_short_and_long_videos(tmp_path):
    short = truth_file([track(1, MASKS)])
    long = truth_file([track(1, MASKS, video=9)])
    long["videos"][0]["id"] = 9
    results = [prediction(0.9, MASKS), prediction(0.5, [*MASKS[:2], None, None])]
    results.append(prediction(0.9, [*MASKS[:2], None, None], video=9))
    paths = write(tmp_path, short=short, long=long, results=results)
    report = score_short_long(*paths, tmp_path / "scores.json")
    assert report["short"]["AP"] == pytest.approx(1)
    assert report["long"]["AP"] == pytest.approx(0.4)  # IoU 2 / 3
    assert report["mAP"] == pytest.approx(0.7)
    assert report["short"]["IDF1"] > 0
    assert score_short_long(*paths, score_threshold=0.95)["short"]["IDF1"] == 0
    with pytest.raises(FormatError, match="expected none of .*short.json, got id 1"):
        score_short_long(paths[0], paths[0], paths[2])
    paths = write(tmp_path, results=[prediction(0.9, MASKS, video=3)])
    with pytest.raises(FormatError, match="expected a video of the truth, got 3"):
        score_short_long(tmp_path / "short.json", tmp_path / "long.json", *paths)


def test_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys, vis_jax.scoring, vis_jax.metrics.tracking\n"
        "heavy = {'jax', 'flax', 'tensorflow', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
