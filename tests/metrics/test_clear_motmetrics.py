import numpy as np
import pytest

from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.clear_motmetrics import Counts, count, total
from vis_jax.metrics.frame_overlaps import VideoOverlaps
from vis_jax.metrics.tracking import tracking_scores

M = rows(8)[0]


def one_track(*frames):
    """Overlaps of one track; a frame has the IoU of each prediction that is there."""
    return VideoOverlaps(
        truth_ids=[np.array([0])] * len(frames),
        result_ids=[np.array(list(frame), int) for frame in frames],
        ious=[np.array([list(frame.values())], float) for frame in frames],
        scores=np.array([0.9, 0.8, 0.7]),
        num_truths=1,
    )


def counts(*frames, kept=(True, True, True)):
    return count(one_track(*frames), np.array(kept), iou_threshold=0.5)


def test_a_pair_of_any_earlier_frame_is_kept():
    found = counts({0: 0.6}, {1: 0.9}, {0: 0.5, 1: 0.9})
    # Frame 1 switches to 1, frame 2 stays with it.
    assert (found.num_switches, found.num_matches) == (1, 2)
    found = counts({0: 0.6}, {1: 0.4}, {0: 0.5, 1: 0.9})
    # In frame 2 the prediction of frame 0 goes before the better one.
    assert (found.num_switches, found.num_matches, found.num_misses) == (0, 2, 1)
    assert found.distance == pytest.approx(0.4 + 0.5)
    assert found.num_false_positives == 2


def test_trackeval_and_motmetrics_differ_after_a_gap():
    part = rows(6)[0]
    truth = parse_truth(truth_file([track(1, [M] * 3)], lengths=(3,)))
    results = [prediction(0.9, [part, None, part]), prediction(0.9, [None, ~M, M])]
    found = tracking_scores(truth, parse_results(results, truth))
    assert (found["FN"], found["FP"], found["IDSW"]) == (1, 2, 1)
    assert found["MOTA"] == pytest.approx(1 - 4 / 3)
    assert found["motmetrics"]["num_switches"] == 0
    assert found["motmetrics"]["mota"] == 0


def test_the_earlier_track_keeps_a_prediction_that_both_had():
    everything = np.array([[0.6], [0.6]])
    overlaps = VideoOverlaps(
        truth_ids=[np.array([1]), np.array([0]), np.array([0, 1])],
        result_ids=[np.array([0])] * 3,
        ious=[everything[:1], everything[:1], everything],
        scores=np.ones(1),
        num_truths=2,
    )
    found = count(overlaps, np.ones(1, bool), iou_threshold=0.5)
    assert (found.num_matches, found.num_misses, found.num_switches) == (3, 1, 0)


def test_as_many_pairs_as_there_can_be():
    overlaps = VideoOverlaps(
        truth_ids=[np.array([0, 1])],
        result_ids=[np.array([0, 1])],
        ious=[np.array([[0.95, 0.5], [0.5, 0.1]])],
        scores=np.ones(2),
        num_truths=2,
    )
    found = count(overlaps, np.ones(2, bool), iou_threshold=0.5)
    assert (found.num_matches, found.distance) == (2, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("frames", "fragments"),
    [("+-+", 1), ("+--+-+", 2), ("--++--", 0), ("-+-+", 1), ("---", 0)],
)
def test_a_fragment_is_a_gap_between_two_matches(frames, fragments):
    found = counts(*({0: 0.9} if frame == "+" else {} for frame in frames))
    assert found.num_fragmentations == fragments


@pytest.mark.parametrize(
    ("matched", "kind"),
    [(8, "mostly_tracked"), (7, "partially_tracked"), (2, "partially_tracked")]
    + [(1, "mostly_lost"), (0, "mostly_lost")],
)
def test_shares_of_frames(matched, kind):
    found = counts(*[{0: 0.9}] * matched, *[{}] * (10 - matched))
    kinds = ("mostly_tracked", "partially_tracked", "mostly_lost")
    assert {name: getattr(found, name) for name in kinds} == {
        name: int(name == kind) for name in kinds
    }


def test_predictions_that_are_left_out():
    found = counts({0: 0.9, 1: 0.9}, kept=(False, True, True))
    assert (found.num_predictions, found.num_false_positives) == (1, 0)


def test_ratios_of_a_sum():
    part = Counts(num_matches=3, num_misses=1, num_objects=4, distance=0.6)
    other = Counts(num_switches=1, num_false_positives=2, num_objects=4)
    report = total([part, other]).report()
    assert report["mota"] == pytest.approx(1 - 4 / 8)
    assert report["motp"] == pytest.approx(0.6 / 4)
    assert report["precision"] == pytest.approx(4 / 6)
    assert report["recall"] == pytest.approx(4 / 8)


def test_without_anything_no_ratio_is_defined():
    report = total([]).report()
    assert {report[name] for name in ("mota", "motp", "precision", "recall")} == {None}
    assert report["num_objects"] == 0


def test_precision_of_predictions_where_nothing_is_annotated():
    report = Counts(num_false_positives=2, num_predictions=2).report()
    assert (report["precision"], report["recall"]) == (0.0, None)
