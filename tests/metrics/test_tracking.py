from pathlib import Path

import numpy as np
import pytest

from tests.metrics.scenes import prediction, random_files, rows, track, truth_file
from vis_jax.formats.results_json import load_results, load_truth, parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.tracking import SWEEP, measure, pool, tracking_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluator"
M = rows(8)[0]
MEANS = ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr")
FRACTIONS = (*MEANS, "MOTA", "sMOTA", "MOTP", "Re", "Pr", "IDF1", "IDP", "IDR")


def scores(annotations, results, **settings):
    length = len(annotations[0]["segmentations"]) if annotations else 4
    truth = parse_truth(truth_file(annotations, lengths=(length, length)))
    return tracking_scores(truth, parse_results(results, truth), **settings)


def test_a_change_of_identity_after_a_gap():
    results = [prediction(0.9, [M, None, None]), prediction(0.9, [None, None, M])]
    found = scores([track(1, [M] * 3)], results)
    assert (found["IDSW"], found["FN"]) == (1, 1)
    assert found["MOTA"] == pytest.approx(1 / 3)
    assert found["IDF1"] == pytest.approx(0.4)
    assert (found["IDP"], found["IDR"]) == (0.5, pytest.approx(1 / 3))


def test_switching_back_counts_again():
    results = [prediction(0.9, [M, None, M]), prediction(0.9, [None, M, None])]
    found = scores([track(1, [M] * 3)], results)
    assert (found["IDSW"], found["IDF1"]) == (2, pytest.approx(2 / 3))
    assert found["MOTA"] == pytest.approx(1 / 3)


def test_a_copy_of_a_track_is_false():
    found = scores([track(1, [M] * 4)], [prediction(0.9, [M] * 4)] * 2)
    assert (found["MOTA"], found["IDF1"]) == (0, pytest.approx(2 / 3))
    assert (found["IDP"], found["IDR"], found["IDSW"]) == (0.5, 1, 0)


def test_a_perfect_result():
    annotations = [track(1, [M] * 4), track(2, [M] * 4, video=2, category=2)]
    results = [
        prediction(0.9, [M] * 4),
        prediction(0.9, [M] * 4, video=2, category=2),
    ]
    found = scores(annotations, results)
    for key in FRACTIONS:
        assert found[key] == pytest.approx(1), key
    assert found["videos"][2]["IDTP"] == 4


def test_categories_keep_tracks_apart_if_asked():
    wrong = [prediction(0.9, [M] * 4, category=2)]
    assert scores([track(1, [M] * 4)], wrong)["IDF1"] == 0
    agnostic = scores([track(1, [M] * 4)], wrong, class_aware=False)
    assert agnostic["IDF1"] == 1


def test_low_scores_and_crowds_are_left_out():
    truths = [track(1, [M] * 4), track(2, [~M] * 4, crowd=1)]
    results = [prediction(0.9, [M] * 4), prediction(0.29, [~M] * 4)]
    found = scores(truths, results)
    assert (found["TP"], found["FP"], found["FN"]) == (4, 0, 0)
    assert scores(truths, results, score_threshold=0.2)["FP"] == 4


def test_boxes_are_tight_and_end_after_the_last_pixel():
    corners = np.zeros((4, 10), bool)
    corners[0, 0] = corners[3, 4] = True  # a box of 4 x 5
    block = np.zeros((4, 10), bool)
    block[:, :4] = True  # a box of 4 x 4 within it
    truths, results = [track(1, [corners])], [prediction(0.9, [block])]
    found = scores(truths, results, kind="box")
    assert found["MOTP"] == pytest.approx(16 / 20)
    assert scores(truths, results)["TP"] == 0


def test_an_invisible_track_and_an_empty_mask_are_absent():
    truths = [track(1, [M] * 4), track(2, [None] * 4)]
    results = [prediction(0.9, [M] * 4), prediction(0.9, [np.zeros_like(M)] * 4)]
    found = scores(truths, results)
    assert (found["HOTA"], found["FP"], found["FN"]) == (1, 0, 0)


def test_nothing_is_predicted():
    found = scores([track(1, [M] * 4)], [], sweep=True)
    assert (found["IDF1"], found["HOTA"]) == (0, 0)


@pytest.mark.parametrize(
    "truths", [[], [track(1, [None] * 4)], [track(1, [M], crowd=1)]]
)
@pytest.mark.parametrize("results", [[], [prediction(0.9, [M] * 4)]])
def test_where_there_is_nothing_to_track_no_fraction_is_defined(truths, results):
    found = scores(truths, results, sweep=True)
    for name in FRACTIONS:
        assert found[name] is None, name
        assert found["videos"][1][name] is None
    assert found["best"] == {"score_threshold": None, "IDF1": None}
    assert (found["TP"], found["FN"]) == (0, 0)
    assert found["FP"] == (4 if results else 0)
    for name in ("mota", "motp", "recall"):
        assert found["motmetrics"][name] is None


def test_kind_is_checked():
    with pytest.raises(ValueError, match="kind: expected 'mask' or 'box'"):
        scores([], [], kind="tube")


@pytest.mark.parametrize("name", ["basic", "crowd"])
def test_the_sweep_finds_the_best_threshold(name):
    truth = load_truth(GOLDEN / f"{name}_gt.json")
    results = load_results(GOLDEN / f"{name}_results.json", truth)
    best = tracking_scores(truth, results, sweep=True)["best"]
    every = [
        tracking_scores(truth, results, score_threshold=threshold)["IDF1"]
        for threshold in SWEEP
    ]
    assert best["IDF1"] == pytest.approx(max(every), abs=1e-12)
    assert every[list(SWEEP).index(best["score_threshold"])] == max(every)


@pytest.mark.parametrize("name", ["basic", "crowd", "occlusion"])
def test_equal_to_trackeval(name):
    truth = load_truth(GOLDEN / f"{name}_gt.json")
    results = load_results(GOLDEN / f"{name}_results.json", truth)
    found = tracking_scores(truth, results, class_aware=False)
    expected = np.load(GOLDEN / "expected.npz")
    rows = {"OVERALL": found} | {str(k): v for k, v in found["videos"].items()}
    for video, row in rows.items():
        for key, value in row.items():
            if key in ("videos", "motmetrics"):
                continue
            if key in MEANS:
                path = f"HOTA/{key}"
            elif key.startswith("ID") and key != "IDSW":
                path = f"Identity/{key}"
            elif key in ("TP", "FN", "FP", "Re", "Pr"):
                path = f"CLEAR/CLR_{key}"
            else:
                path = f"CLEAR/{key}"
            reference = np.mean(expected[f"trackeval/{name}/{video}/{path}"])
            if value is None:  # a convention of TrackEval, 0 or 1
                assert not row["TP"] + row["FN"] and reference in (0, 1), (video, key)
            else:
                assert value == pytest.approx(reference, abs=1e-12), (video, key)


@pytest.mark.filterwarnings("ignore")  # of TrackEval, which has not met NumPy 2
def test_equal_to_trackeval_on_random_scenes():
    peer = pytest.importorskip("trackeval.metrics")
    config = {"THRESHOLD": 0.5, "PRINT_CONFIG": False}
    metrics = [peer.HOTA(), peer.CLEAR(config), peer.Identity(config)]
    ours, theirs = {}, []
    for seed in range(20):
        content, results = random_files(seed, odd=False)
        truth = parse_truth(content)
        overlaps = video_overlaps(
            [x for x in truth.tracks if x.video_id == 1 and not x.crowd],
            [x for x in parse_results(results, truth).tracks if x.video_id == 1],
            kind="mask",
            class_aware=False,
        )
        data = trackeval_data(overlaps)
        theirs.append([metric.eval_sequence(data) for metric in metrics])
        ours[seed] = measure(overlaps, 0.0)
    pairs = list(zip(ours.values(), theirs, strict=True))
    combined = [
        metric.combine_sequences({k: row[m] for k, row in enumerate(theirs)})
        for m, metric in enumerate(metrics)
    ]
    pairs.append((pool(ours), combined))
    assert sum(ours.clear.TP for ours, _ in pairs) > 50
    for found, (hota, clear, identity) in pairs:
        expected = {k.removeprefix("CLR_"): v for k, v in clear.items()} | identity
        expected |= {k: np.mean(hota[k]) for k in MEANS}
        counts = found.clear._asdict() | found.identity._asdict()
        row = found.hota.report() | found.clear.report() | found.identity.report()
        row |= {k: v for k, v in counts.items() if k != "iou"}
        if found.clear.TP + found.clear.FN:  # else it gives 0, and 1, by convention
            assert row == {k: expected[k] for k in row}


def trackeval_data(overlaps):
    """Converts overlaps to TrackEval's input, which has visible tracks only."""
    seen = sorted({g for ids in overlaps.truth_ids for g in ids.tolist()})
    return {
        "num_timesteps": len(overlaps.ious),
        "num_gt_ids": len(seen),
        "num_tracker_ids": len(overlaps.scores),
        "num_gt_dets": sum(map(len, overlaps.truth_ids)),
        "num_tracker_dets": sum(map(len, overlaps.result_ids)),
        "gt_ids": [np.searchsorted(seen, ids) for ids in overlaps.truth_ids],
        "tracker_ids": overlaps.result_ids,
        "similarity_scores": overlaps.ious,
    }
