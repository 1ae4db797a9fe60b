import numpy as np
import pytest

from tests.metrics.scenes import prediction, track, truth_file
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.oracle_scores import ORACLES, oracle_scores

T = 4
LEFT, RIGHT, SLIVER = (np.zeros((4, 10), bool) for _ in range(3))
LEFT[:, :4] = True
RIGHT[:, 6:] = True
SLIVER[:, :1] = True  # IoU 0.25 with LEFT


def scores(truths, predictions):
    truth = parse_truth(truth_file(truths))
    return oracle_scores(truth, parse_results(predictions, truth))


def ap(truths, predictions):
    return {name: one["AP"] for name, one in scores(truths, predictions).items()}


def test_each_oracle_mends_its_own_kind_and_no_other():
    one = [track(1, [LEFT] * T)]
    wrong_class = ap(one, [prediction(0.9, [LEFT] * T, category=2)])
    assert wrong_class == pytest.approx({"classes": 1, "masks": 0, "identities": 0})
    wrong_mask = ap(one, [prediction(0.9, [SLIVER] * T)])
    assert wrong_mask == pytest.approx({"classes": 0, "masks": 1, "identities": 0})
    # Two predictions that change places: each covers a third of the union.
    two = [track(1, [LEFT] * T), track(2, [RIGHT] * T)]
    switched = [
        prediction(0.9, [LEFT, LEFT, RIGHT, RIGHT]),
        prediction(0.8, [RIGHT, RIGHT, LEFT, LEFT]),
    ]
    found = ap(two, switched)
    assert found["classes"] == pytest.approx(0)
    assert found["identities"] == pytest.approx(1)


def test_identities_keep_masks_that_are_on_nothing_with_their_track():
    truths = [track(1, [LEFT] * T)]
    parts = [
        prediction(0.9, [LEFT, LEFT, None, None]),
        prediction(0.5, [None, None, LEFT, SLIVER]),
    ]
    found = scores(truths, parts)["identities"]
    # 13 of 16 columns: one track with IoU 0.81, found up to a threshold of 0.8.
    assert found["AP"] == pytest.approx(0.7)


def test_perfect_results_stay_perfect_and_background_stays_wrong():
    truths = [track(1, [LEFT] * T)]
    perfect = dict.fromkeys(ORACLES, pytest.approx(1))
    assert ap(truths, [prediction(0.9, [LEFT] * T)]) == perfect
    elsewhere = [prediction(0.9, [RIGHT] * T), prediction(0.8, [LEFT] * T)]
    assert ap(truths, elsewhere) == dict.fromkeys(ORACLES, pytest.approx(0.5))
    assert ap(truths, []) == dict.fromkeys(ORACLES, 0.0)
    assert ap([], elsewhere) == dict.fromkeys(ORACLES)
