import numpy as np
import pytest

from tests.metrics.scenes import prediction, random_files, track, truth_file
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.tube_overlap import matching_iou, tube_overlap


def tracks(a, b):
    """Tracks of bool[n, T, H, W] tubes."""
    entries = [track(i + 1, masks) for i, masks in enumerate(b)]
    file = truth_file(entries, lengths=(a.shape[1],), size=a.shape[2:])
    truth = parse_truth(file)
    results = parse_results([prediction(0.5, masks) for masks in a], truth)
    return results.tracks, truth.tracks


@pytest.mark.parametrize("density", [0.0, 0.3, 0.7, 1.0])
def test_counts_are_exact(density):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 3, 37, 53)) < density
    found = tube_overlap(*tracks(a, b), official_quirks=False)
    both = (a[:, None] & b).sum((2, 3, 4))
    either = (a[:, None] | b).sum((2, 3, 4))
    np.testing.assert_array_equal(found.intersection, both)
    np.testing.assert_array_equal(found.union, either)
    np.testing.assert_array_equal(found.iou(), both / np.maximum(either, 1))


def test_large_masks_lose_no_pixel():
    a = np.ones((1, 2, 1080, 1920), bool)
    b = a.copy()
    b[0, 1, -1, -1] = False
    found = tube_overlap(*tracks(a, b), official_quirks=True)
    assert found.intersection.item() == 2 * 1080 * 1920 - 1
    assert found.union.item() == 2 * 1080 * 1920


@pytest.mark.parametrize("odd", [False, True])
def test_pairs_are_given_up_only_below_one_half(odd):
    above = 0
    for seed in range(200, 230):
        files = random_files(seed, odd=odd)
        truth = parse_truth(files[0])
        results = parse_results(files[1], truth)
        for video_id in truth.videos:
            predicted = [x for x in results.tracks if x.video_id == video_id]
            annotated = [x for x in truth.tracks if x.video_id == video_id]
            if not predicted or not annotated:
                continue
            exact = tube_overlap(predicted, annotated, official_quirks=True).iou()
            quick = matching_iou(predicted, annotated, official_quirks=True)
            relevant = exact >= 0.5
            np.testing.assert_array_equal(quick[relevant], exact[relevant])
            assert (quick[~relevant] < 0.5).all()
            above += relevant.sum()
    assert above > 20
