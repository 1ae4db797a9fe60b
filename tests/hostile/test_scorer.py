"""Odd truth and results files get the score that the official tool gives them.

The reference is `tests/metrics/reference_ap.py`, which takes sound files: `_official`
makes of each odd one what the official tool goes on with.
"""

import copy
import json
import math
import os
import random

import numpy as np
import pytest

from tests.command_line import error_of
from tests.metrics import reference_ap
from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.error_breakdown import error_breakdown
from vis_jax.metrics.tracking import tracking_scores
from vis_jax.metrics.video_ap import evaluate
from vis_jax.report.table import format_table
from vis_jax.scoring import Options, score

A, B = rows(8, 12)
OUTSIDE = ~rows(20)[0]
TRUTH = truth_file(
    [
        track(1, [A] * 4),
        track(2, [OUTSIDE] * 4, category=2),
        track(3, [A] * 4, video=2),
        track(4, [OUTSIDE] * 4, video=2, category=2),
    ],
    lengths=(4, 4),
)
RESULTS = [
    prediction(0.9, [A] * 4),
    prediction(0.8, [OUTSIDE, OUTSIDE, None, OUTSIDE], category=2),
    prediction(0.7, [B] * 4, video=2),
    prediction(0.6, [None, OUTSIDE, OUTSIDE, OUTSIDE], video=2, category=2),
]


def _set(place, key, value):
    def change(truth, results):
        target = truth if place[0] == "truth" else results
        for step in place[1:]:
            target = target[step]
        target[key] = value

    return change


def _text_ids(truth, results):
    for record in (*truth["annotations"], *results):
        record["video_id"] = f"clip{record['video_id']}"
        record["category_id"] = f"kind {record['category_id']}"
    for video in truth["videos"]:
        video["id"] = f"clip{video['id']}"
    for category in truth["categories"]:
        category["id"] = f"kind {category['id']}"


def _shifted_ids(truth, results):
    """Ids with fractions and below 0."""
    for record in (*truth["annotations"], *results):
        record["video_id"] -= 1.5
        record["category_id"] -= 9
    for record in (*truth["videos"],):
        record["id"] -= 1.5
    for record in (*truth["categories"],):
        record["id"] -= 9


def _float_ids(truth, results):
    for record in results:
        record |= {key: float(record[key]) for key in ("video_id", "category_id")}


def _absent(value):
    def change(truth, results):
        for entry in results:
            entry["segmentations"] = [x or value for x in entry["segmentations"]]

    return change


def _no_lengths(truth, results):
    for video in truth["videos"]:
        del video["length"]


def _only_ids(truth, results):
    """Nothing in a video but its id and size, nothing in a category but its id."""
    for video in truth["videos"]:
        del video["length"], video["file_names"]
    truth["categories"] = [{"id": entry["id"]} for entry in truth["categories"]]


def _twice(name):
    def change(truth, results):
        truth[name].append(copy.deepcopy(truth[name][0]))

    return change


def _unknown_video(truth, results):
    truth["annotations"].append(track(9, [A] * 4, video="x"))


def _scores(*values):
    def change(truth, results):
        for entry, value in zip(results, values, strict=True):
            entry["score"] = value

    return change


FIRST = ("truth", "annotations", 0)
TOLERATED = {
    "ids that are text": _text_ids,
    "ids with fractions": _shifted_ids,
    "ids as 1.0": _float_ids,
    "absent as []": _absent([]),
    "absent as {}": _absent({}),
    "absent as 0": _absent(0),
    'absent as ""': _absent(""),
    "no lengths": _no_lengths,
    "only ids": _only_ids,
    "wrong length": _set(("truth", "videos", 0), "length", 3),
    "length that is text": _set(("truth", "videos", 0), "length", "4"),
    "file names that are text": _set(("truth", "videos", 0), "file_names", "a.jpg"),
    "name that is a number": _set(("truth", "categories", 0), "name", 5),
    "a video twice": _twice("videos"),
    "a category twice": _twice("categories"),
    "a track twice": _twice("annotations"),
    "a track of no video": _unknown_video,
    "id below 0": _set(FIRST, "id", -3),
    "id with a fraction": _set(FIRST, "id", 1.5),
    "id true": _set(FIRST, "id", True),
    "crowd 2": _set(FIRST, "iscrowd", 2),
    "crowd true": _set(FIRST, "iscrowd", True),
    "areas below 0": _set(FIRST, "areas", [-8, -8, -8, -8]),
    "areas of other types": _set(FIRST, "areas", [8, [], "", False]),
    "occlusion that is text": _set(FIRST, "occlusion", "severe"),
    "size of three": _set(("results", 0, "segmentations", 0), "size", [4, 10, 1]),
    "size of fractions": _set(("results", 0, "segmentations", 0), "size", [4.0, 10.0]),
    "scores true and infinite": _scores(True, math.inf, -math.inf, 10**30),
    "category of results unknown": _set(("results", 0), "category_id", "block"),
}


def _changed(change):
    truth, results = copy.deepcopy((TRUTH, RESULTS))
    change(truth, results)
    return truth, results


def _official(truth, results):
    """Precision and recall; the last of equal ids stands for all of them."""
    truth, results = copy.deepcopy((truth, results))
    ids = {video["id"] for video in truth["videos"]}
    truth["videos"] = [{"id": key} for key in ids]
    truth["categories"] = [{"id": x} for x in {c["id"] for c in truth["categories"]}]
    last = {entry["id"]: entry for entry in truth["annotations"]}
    known = [entry for entry in truth["annotations"] if entry["video_id"] in ids]
    chosen = [last[entry["id"]] for entry in known]
    kept = [entry for entry in chosen if entry["video_id"] in ids]
    for number, entry in enumerate(kept):  # the ids have done their work, but for 0
        kept[number] = dict(entry, id=entry["id"] if entry["id"] == 0 else number + 1)
    truth["annotations"] = kept
    for entry in (*kept, *results):
        for t, mask in enumerate(entry["segmentations"]):
            entry["segmentations"][t] = mask or None
            if mask:
                mask["size"] = [int(side) for side in mask["size"][:2]]
    return reference_ap.evaluate(truth, results)


@pytest.mark.parametrize("name", TOLERATED)
def test_odd_files_have_the_official_score(name):
    content = _changed(TOLERATED[name])
    truth = parse_truth(content[0])
    results = parse_results(content[1], truth)
    found = evaluate(truth, results)
    precision, recall = _official(*content)
    np.testing.assert_allclose(found.curves.precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.curves.recall, recall, rtol=0, atol=1e-12)
    if name != "crowd true":  # which is a 1, and no oddity
        assert found.warnings
        with pytest.raises(FormatError):
            strict = parse_truth(content[0], official_quirks=False)
            parse_results(content[1], strict, official_quirks=False)


@pytest.mark.parametrize("name", TOLERATED)
def test_all_other_numbers_can_be_had_of_them(name, tmp_path):
    for part, content in zip(
        ("truth", "results"), _changed(TOLERATED[name]), strict=True
    ):
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    report = score(
        tmp_path / "truth.json",
        tmp_path / "results.json",
        tmp_path / "scores.json",
        options=Options(tracking=True, per_video=True, per_category=True, errors=True),
    )
    assert 0 <= report["HOTA"] <= 1 and 0 <= report["AP"] <= 1
    assert len(report["videos"]) == 2
    assert json.loads((tmp_path / "scores.json").read_text())["AP"] == report["AP"]
    assert "AP50 lost to" in format_table(report)


DELETED = object()
ODD = [
    *(None, True, False, 0, 1, 2, -1, 7, 1.0, 1.5, -0.0, 10**30, 10**400),
    *(math.nan, math.inf, -math.inf, "", "1", "x", [], [1], [None], {}, {"a": 1}),
    *([[1, 1, 5, 1, 5, 3]], [[1, 1, 5, 1, 5]], [[]], DELETED),
]


def _places(content, path=()):
    """The way to every value of a file."""
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


@pytest.mark.parametrize("seed", range(4))
def test_any_odd_value_anywhere_is_an_error_of_one_line_or_scored(seed):
    rng = random.Random(seed)
    places = list(_places([TRUTH, RESULTS]))
    for _ in range(150):
        files = copy.deepcopy([TRUTH, RESULTS])
        *way, last = rng.choice([path for path in places if len(path) > 1])
        target, value = files, rng.choice(ODD)
        for key in way:
            target = target[key]
        if value is DELETED:
            del target[last]
        else:
            target[last] = copy.deepcopy(value)
        try:
            truth = parse_truth(files[0])
            results = parse_results(files[1], truth)
        except FormatError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 400, (way, last, value)
            assert text.startswith(("truth: ", "results: "))
            continue
        assert 0 <= evaluate(truth, results).stats["AP"] <= 1, (way, last, value)
        tracking_scores(truth, results, sweep=True)
        error_breakdown(truth, results)


def test_the_four_cases_of_one_sound_pair_of_files():
    sound = evaluate(parse_truth(TRUTH), parse_results(RESULTS, parse_truth(TRUTH)))
    assert not sound.warnings
    for name in ("absent as []", "no lengths", "ids as 1.0", "ids that are text"):
        truth, results = _changed(TOLERATED[name])
        truth = parse_truth(truth)
        found = evaluate(truth, parse_results(results, truth))
        assert found.stats == sound.stats
        assert found.warnings


def test_a_track_of_no_video_cannot_stand_for_another():
    truth = dict(TRUTH, annotations=[*TRUTH["annotations"], track(1, [A], video=7)])
    with pytest.raises(FormatError, match=r"annotations\[4\]: id: expected a new id"):
        parse_truth(truth)


def test_polygons_that_pycocotools_draws_all_the_same():
    whole, odd = copy.deepcopy(TRUTH), copy.deepcopy(TRUTH)
    corners = [1, 1, 6, 1, 6, 3]
    whole["annotations"][0]["segmentations"][0] = [corners]
    odd["annotations"][0]["segmentations"][0] = [[*corners, 9], [2, 2]]
    areas = [parse_truth(x).tracks[0].areas[0] for x in (whole, odd)]
    assert areas[0] == areas[1] > 0
    assert parse_truth(odd).tolerated == {"truth: polygons": 2}


def test_without_tracks_nothing_is_defined(tmp_path):
    content = dict(TRUTH, annotations=[])
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    report = score(
        tmp_path / "truth.json",
        tmp_path / "results.json",
        tmp_path / "scores.json",
        options=Options(tracking=True, per_video=True),
    )
    fractions = [
        "AP",
        "HOTA",
        "DetA",
        "AssA",
        "LocA",
        "MOTA",
        "MOTP",
        "IDF1",
        "IDP",
        "IDR",
    ]
    written = json.loads((tmp_path / "scores.json").read_text())
    for numbers in (report, written, *written["videos"]):
        assert [numbers[name] for name in fractions] == [None] * len(fractions)
    assert written["FP"] == 14
    table = format_table(report)
    assert "100.0" not in table and "best IDF1" not in table


@pytest.mark.parametrize("flag", ["truth", "results"])
def test_a_pipe_is_refused_before_it_is_opened(tmp_path, flag):
    paths = {name: tmp_path / f"{name}.json" for name in ("truth", "results")}
    paths["truth"].write_text(json.dumps(TRUTH))
    paths["results"].write_text(json.dumps(RESULTS))
    paths[flag].unlink()
    os.mkfifo(paths[flag])
    words = [f"--{name}={path}" for name, path in paths.items()]
    assert error_of("score", *words) == (
        f"{paths[flag]}: expected a regular file, got a pipe or a device"
    )
