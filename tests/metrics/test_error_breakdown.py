from pathlib import Path

import numpy as np
import pytest

from tests.metrics.scenes import prediction, random_files, track, truth_file
from vis_jax.formats.results_json import load_results, load_truth, parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.error_breakdown import KINDS, error_breakdown
from vis_jax.metrics.video_ap import evaluate

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluator"
T = 12
LEFT, RIGHT, CORNER, SHIFTED = np.zeros((4, 4, 10), bool)
LEFT[:, :4], RIGHT[:, 4:8], CORNER[:, 9], SHIFTED[:, 2:6] = True, True, True, True


def errors(annotations, results):
    truth = parse_truth(truth_file(annotations, lengths=(T,)))
    found = error_breakdown(truth, parse_results(results, truth))
    return {kind: n for kind, n in found["counts"].items() if n}, found


def part(mask, start, stop):
    """The mask in some frames only."""
    return [mask if start <= t < stop else None for t in range(T)]


ONE = [track(1, [LEFT] * T)]


@pytest.mark.parametrize(
    ("kind", "results", "missed"),
    [
        ("classification", [prediction(0.9, [LEFT] * T, category=2)], 0),
        ("localisation", [prediction(0.9, [SHIFTED] * T)], 0),
        ("both", [prediction(0.9, [SHIFTED] * T, category=2)], 1),
        ("background", [prediction(0.9, [CORNER] * T)], 1),
        ("background", [prediction(0.9, [None] * T)], 1),
        ("fragment", [prediction(0.9, part(LEFT, 0, 4))], 0),
        ("fragment", [prediction(0.9, part(LEFT, 0, 1))], 0),
    ],
)
def test_kinds_of_a_single_wrong_prediction(kind, results, missed):
    counts, found = errors(ONE, results)
    assert counts == {kind: 1} | ({"miss": 1} if missed else {})
    assert found["AP50"] == 0
    # Only a prediction about the track can be mended into its discovery.
    assert found["lost"][kind] == pytest.approx(0 if missed else 1)
    assert found["lost"]["miss"] == missed


def test_a_switch_follows_two_tracks():
    both = [*part(LEFT, 0, 6)[:6], *part(RIGHT, 6, T)[6:]]
    truths = [track(1, [LEFT] * T), track(2, [RIGHT] * T)]
    counts, found = errors(truths, [prediction(0.9, both)])
    assert counts == {"switch": 1, "miss": 1}
    assert found["lost"]["switch"] == pytest.approx(51 / 101)


def test_fragments_are_joined_into_one():
    results = [prediction(0.9 - t / 100, part(LEFT, t, t + 4)) for t in (0, 4, 8)]
    counts, found = errors(ONE, results)
    assert counts == {"fragment": 3}
    assert found["lost"]["fragment"] == pytest.approx(1)


def test_a_duplicate_costs_what_ranks_below_it():
    truths = [track(1, [LEFT] * T), track(2, [RIGHT] * T)]
    results = [prediction(0.9, [LEFT] * T), prediction(0.8, [LEFT] * T)]
    counts, found = errors(truths, [*results, prediction(0.7, [RIGHT] * T)])
    assert counts == {"duplicate": 1}
    assert found["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found["lost"]["duplicate"] == pytest.approx(1 - found["AP50"])


def test_crowds_are_no_errors():
    truths = [*ONE, track(2, [RIGHT] * T, crowd=1)]
    results = [prediction(0.9, [RIGHT] * T), prediction(0.8, [LEFT] * T)]
    counts, found = errors(truths, results)
    assert counts == {}
    assert found["AP50"] == pytest.approx(1)


def test_a_perfect_result_loses_nothing():
    _, found = errors(ONE, [prediction(0.9, [LEFT] * T)])
    assert set(found["lost"]) == set(KINDS)
    assert all(value == pytest.approx(0) for value in found["lost"].values())


def test_nothing_to_find():
    counts, found = errors([], [prediction(0.9, [LEFT] * T)])
    assert counts == {"background": 1}
    assert found["AP50"] is None
    assert set(found["lost"].values()) == {None}


@pytest.mark.parametrize("name", ["basic", "edge", "ties", "crowd", "occlusion"])
def test_starts_from_the_official_ap50(name):
    truth = load_truth(GOLDEN / f"{name}_gt.json")
    results = load_results(GOLDEN / f"{name}_results.json", truth)
    expected = evaluate(truth, results).stats["AP50"]
    assert error_breakdown(truth, results)["AP50"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("odd", [False, True])
def test_holds_on_random_files(odd):
    for seed in range(300, 320):
        files = random_files(seed, odd=odd)
        truth = parse_truth(files[0])
        results = parse_results(files[1], truth)
        found = error_breakdown(truth, results)
        stats = evaluate(truth, results).stats
        assert found["AP50"] == pytest.approx(stats["AP50"], abs=1e-12), seed
        if found["AP50"] is not None:
            assert all(v <= 1 - found["AP50"] + 1e-9 for v in found["lost"].values())
            for kind in ("both", "duplicate", "background", "miss"):
                assert found["lost"][kind] >= -1e-12, (seed, kind)
