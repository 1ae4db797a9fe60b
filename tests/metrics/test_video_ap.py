import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.metrics import reference_ap
from tests.metrics.scenes import prediction, random_files, rows, track, truth_file
from vis_jax.formats.occlusion import occlusion_score
from vis_jax.formats.results_json import load_results, load_truth, parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.video_ap import evaluate

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluator"
SETS = ["basic", "edge", "ties", "crowd", "nearly_empty", "occlusion"]


def scores(annotations, results, *, quirks=True, occlusion=False, **settings):
    truth = parse_truth(truth_file(annotations, **settings))
    return evaluate(
        truth,
        parse_results(results, truth),
        official_quirks=quirks,
        occlusion=occlusion,
    )


def stats(*args, **settings):
    return scores(*args, **settings).stats


FULL = rows(8, 8, 8, 8)
LEFT, RIGHT = np.zeros((2, 4, 10), bool)
LEFT[:, :5] = RIGHT[:, 5:] = True


def test_an_identical_prediction_is_perfect():
    found = stats([track(1, FULL)], [prediction(0.5, FULL)])
    assert found["AP"] == 0.9999999999999998  # as the official tool has it
    assert found["AR1"] == found["AR100"] == found["ARs"] == 1
    assert found["APm"] is None


def test_half_of_the_frames_give_iou_one_half():
    half = [*FULL[:2], None, None]
    found = stats([track(1, FULL)], [prediction(0.5, half)])
    assert found["AP"] == pytest.approx(0.1)
    assert (found["AP50"], found["AP75"]) == (pytest.approx(1), 0)


def test_one_of_two_tracks_reaches_51_of_101_recall_points():
    truths = [track(1, [LEFT] * 4), track(2, [RIGHT] * 4)]
    found = stats(truths, [prediction(0.5, [LEFT] * 4)])
    assert found["AP"] == pytest.approx(51 / 101)


def test_categories_have_equal_weight():
    truths = [track(1, FULL), track(2, FULL, category=2)]
    found = stats(truths, [prediction(0.5, FULL)])
    assert (found["AP"], found["AR100"]) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_category_without_tracks_does_not_count():
    wrong = prediction(0.9, FULL, category=2)
    found = scores([track(1, FULL)], [wrong, prediction(0.5, FULL)])
    assert found.stats["AP"] == pytest.approx(1)
    assert found.per_category[2]["AP"] is None


def test_equal_scores_keep_the_order_of_the_file():
    truths = [track(1, FULL)]
    exact, half = prediction(0.5, FULL), prediction(0.5, [*FULL[:2], None, None])
    assert stats(truths, [exact, half])["AP"] == pytest.approx(1)
    found = stats(truths, [half, exact])
    assert found["AP"] == pytest.approx(0.55)
    assert found["AP75"] == pytest.approx(0.5)


def test_the_limit_is_per_video_and_category():
    truths = [track(1, [LEFT] * 4), track(2, [RIGHT] * 4)]
    truths.append(track(3, [LEFT] * 4, category=2))
    results = [prediction(0.9, [LEFT] * 4), prediction(0.8, [RIGHT] * 4)]
    results.append(prediction(0.7, [LEFT] * 4, category=2))
    found = stats(truths, results)
    assert (found["AR1"], found["AR10"]) == (0.75, 1)


def test_predictions_on_a_crowd_do_not_count():
    crowd = track(2, [RIGHT] * 4, crowd=1)
    twice = [prediction(0.9, [RIGHT] * 4)] * 2
    truths, right = [track(1, [LEFT] * 4), crowd], prediction(0.5, [LEFT] * 4)
    assert stats(truths, [*twice, right])["AP"] == pytest.approx(1)
    small = RIGHT & (np.arange(4) < 1)[:, None] & (np.arange(10) > 8)
    inside = prediction(0.9, [small] * 4)  # IoU with the crowd is small
    assert stats(truths, [inside, right])["AP"] == pytest.approx(0.5)


def test_at_equal_overlap_the_later_track_is_taken():
    # The second has an area that the file says is medium, the first a small one: only
    # where the taken track is in range does the prediction count.
    truths = [track(1, FULL), track(2, FULL)]
    truths[1]["areas"] = [20_000] * 4
    found = stats(truths, [prediction(0.5, FULL)])
    assert found["AR1"] == 0.5
    assert (found["ARs"], found["ARm"]) == (1, 1)  # in range comes before out of range
    truths[1]["id"] = 0  # and id 0 is never found
    assert stats(truths, [prediction(0.5, FULL)])["AR1"] == 0
    truths[1]["id"], truths[0]["id"] = 2, 0
    assert stats(truths, [prediction(0.5, FULL)])["AR1"] == 0.5


def test_no_predictions_give_zero():
    found = scores([track(1, FULL)], [])
    assert found.stats["AP"] == found.stats["AR100"] == 0
    assert found.stats["APl"] is None


def test_no_truth_gives_nothing():
    assert set(stats([], [prediction(0.5, FULL)]).values()) == {None}


@pytest.mark.parametrize(
    ("masks", "official", "clean"),
    [
        (FULL[:2], 1.0, 0.1),  # a short list leaves the tail out
        ([*FULL, *FULL], 1.0, 0.1),  # a long one is cut
        ([*FULL[:2], *rows(8, 8, size=(8, 20))], 1.0, 0.0),  # other sizes drop out
        (rows(8, 8, 8, 8, size=(8, 20)), 0.0, 0.0),
    ],
)
def test_quirks_are_reproduced_and_counted(masks, official, clean):
    truths, results = [track(1, FULL)], [prediction(0.5, masks)]
    found = scores(truths, results)
    assert found.stats["AP"] == pytest.approx(official)
    assert sum(found.warnings.values()) >= 1
    assert stats(truths, results, quirks=False)["AP"] == pytest.approx(clean)


def test_empty_runs_in_masks_mean_nothing():
    truths, results = [track(1, FULL)], [prediction(0.5, FULL)]
    listed = {"size": [4, 10], "counts": [5, 10, 0, 0, 5, 0, 10, 10]}
    truths[0]["segmentations"] = [listed] * 4
    code = coco_mask.frPyObjects(listed, 4, 10)
    text = {"size": [4, 10], "counts": code["counts"].decode()}
    results[0]["segmentations"] = [text] * 4
    for quirks in (True, False):
        found = scores(truths, results, quirks=quirks)
        assert found.stats["AP"] == pytest.approx(1)
    assert found.warnings["results: masks with empty runs"] == 4
    assert found.warnings["truth: masks with empty runs"] == 4
    half = {"size": [4, 10], "counts": [5, 10, 0, 0, 25]}  # empty at the same place
    code = coco_mask.frPyObjects(half, 4, 10)
    text = {"size": [4, 10], "counts": code["counts"].decode()}
    results[0]["segmentations"] = [text] * 4
    found = scores(truths, results)
    assert (found.stats["AP50"], found.stats["AP75"]) == (pytest.approx(1), 0)


def test_track_ids_mean_nothing_in_the_clean_definition():
    results = [prediction(0.5, FULL)]
    zero = [track(0, FULL)]
    assert stats(zero, results)["AP"] == 0
    assert stats(zero, results, quirks=False)["AP"] == pytest.approx(1)
    same = [track(1, [LEFT] * 4), track(1, FULL)]
    both = [prediction(0.5, [LEFT] * 4), prediction(0.5, FULL)]
    assert stats(same, both)["AR100"] == 0.5  # the last one, twice
    assert stats(same, both, quirks=False)["AR100"] == 1


def test_occlusion_score_is_the_mean_of_the_worse_half():
    n, s, v = "no_occlusion", "slight_occlusion", "severe_occlusion"
    assert occlusion_score([n, n, s, s]) == 0.25
    assert occlusion_score([s, s, v, v, None]) == 0.75
    assert occlusion_score([n, n, n, v]) == 0.375
    assert occlusion_score([None, None]) == 0


def test_occlusion_groups():
    levels = ["no_occlusion"] * 2 + ["slight_occlusion"] * 2  # 0.25: light and moderate
    truths = [
        track(1, [LEFT] * 4, occlusion=levels),
        track(2, [RIGHT] * 4, occlusion=["severe_occlusion"] * 4),
    ]
    right = prediction(0.5, [LEFT] * 4)
    found = stats(truths, [right], occlusion=True)
    keys = ("AP", "AP_SO", "AP_MO", "AP_HO")
    np.testing.assert_allclose([found[k] for k in keys], [51 / 101, 1, 1, 0])
    wrong = prediction(0.9, rows(1, 1, 1, 1))
    found = stats(truths, [right, wrong], occlusion=True)
    expected = [51 / 202, 0.5, 0.5, 0]
    np.testing.assert_allclose([found[k] for k in keys], expected)
    with pytest.raises(ValueError, match="occlusion: expected a list"):
        stats([track(1, FULL)], [right], occlusion=True)


def test_per_video_scores_each_video_alone():
    truths = [track(1, FULL), track(2, FULL, video=2)]
    truth = parse_truth(truth_file(truths, lengths=(4, 4, 4)))
    results = parse_results([prediction(0.5, FULL, video=2)], truth)
    assert evaluate(truth, results).per_video == {}
    found = evaluate(truth, results, per_video=True)
    assert found.per_video[1]["AP"] == 0
    assert found.per_video[2]["AP"] == pytest.approx(1)
    assert 3 not in found.per_video


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("first", range(0, 120, 20))
def test_equal_to_the_rules_written_out(first, odd):
    for seed in range(first, first + 20):
        truth_content, results_content = random_files(seed, odd=odd)
        truth = parse_truth(truth_content, official_quirks=odd)
        results = parse_results(results_content, truth, official_quirks=odd)
        found = evaluate(truth, results)
        precision, recall = reference_ap.evaluate(truth_content, results_content)
        message = f"seed {seed}"
        np.testing.assert_allclose(
            found.curves.precision, precision, atol=1e-15, err_msg=message
        )
        np.testing.assert_array_equal(found.curves.recall, recall, err_msg=message)
        expected = reference_ap.stats(precision, recall)
        ours = [-1 if v is None else v for v in found.stats.values()]
        np.testing.assert_allclose(ours, expected, atol=1e-12, err_msg=message)
        if not odd:  # sound files have one score only
            clean = evaluate(truth, results, official_quirks=False)
            np.testing.assert_array_equal(clean.curves.precision, precision)


@pytest.mark.parametrize("name", SETS)
def test_equal_to_the_official_evaluator(name):
    truth = load_truth(GOLDEN / f"{name}_gt.json")
    results = load_results(GOLDEN / f"{name}_results.json", truth)
    found = evaluate(truth, results)
    expected = np.load(GOLDEN / "expected.npz")
    ours = [-1 if value is None else value for value in found.stats.values()]
    np.testing.assert_allclose(ours, expected[f"{name}/stats"], rtol=0, atol=1e-12)
    points = slice(None, None, 5 if name == "occlusion" else 1)
    for key, array in (
        ("precision", found.curves.precision[:, points]),
        ("recall", found.curves.recall),
    ):
        np.testing.assert_allclose(array, expected[f"{name}/{key}"], rtol=0, atol=1e-12)
    sums = json.loads((GOLDEN / "expected.json").read_text())["checksum"][name]
    for key, array in found.curves._asdict().items():
        rounded = (np.round(array, 9) + 0.0).astype("<f8").tobytes()
        assert hashlib.sha256(rounded).hexdigest() == sums[key], key
