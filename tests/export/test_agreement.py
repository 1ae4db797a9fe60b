import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from vis_jax.export.agreement import EXACT, Agreement, Tolerance, compare
from vis_jax.results.frame import FrameResult, LiveTracks

SIZE = (4, 5)


def frame(probs, masks, number=0):
    """Tracks 1, 2, .. with these probabilities and masks, [n, H, W] of 0 and 1."""
    ids = np.arange(1, len(probs) + 1, dtype=np.int32)
    probs = np.array(probs, np.float32).reshape(len(probs), 2)
    columns = [np.asfortranarray(np.asarray(mask, np.uint8)) for mask in masks]
    rles = [coco_mask.encode(one) for one in columns]
    return FrameResult(number, LiveTracks(ids, probs), np.arange(len(rles)), rles, SIZE)


def box(*, rows, columns):
    mask = np.zeros(SIZE, np.uint8)
    mask[:rows, :columns] = 1
    return mask


def test_two_equal_runs_agree_exactly():
    frames = [frame([[0.2, 0.7]], [box(rows=2, columns=2)], t) for t in range(3)]
    found = compare(iter(frames), frames)
    assert found == Agreement(frames=3, tracks=1, scores=0.0, pixels=1.0)
    assert found.within(EXACT)


def test_differences_are_the_largest_score_and_the_share_of_mask_pixels():
    one = frame([[0.2, 0.7], [0.5, 0.0]], [box(rows=2, columns=2)] * 2)
    other = frame([[0.1, 0.75], [0.5, 0.0]], [box(rows=2, columns=3)] * 2)
    found = compare([one, frame([[0, 0]], [])], [other, frame([[0, 0]], [])])
    assert found.scores == pytest.approx(0.1)
    assert found.pixels == pytest.approx(8 / 12)
    assert found.within(Tolerance(scores=0.11, pixels=0.6))
    assert not found.within(Tolerance(scores=0.09, pixels=0.6))
    assert not found.within(Tolerance(scores=0.11, pixels=0.7))


def test_a_track_that_one_side_alone_has_counts_as_it_is_there():
    one = frame([[0.0, 0.0], [0.3, 0.4]], [box(rows=1, columns=1)] * 2)
    other = frame([[0.0, 0.0]], [box(rows=1, columns=1)])
    for pair in ((one, other), (other, one)):
        found = compare(*[[side] for side in pair])
        assert found.tracks == 2
        assert found.scores == pytest.approx(0.4)
        assert found.pixels == pytest.approx(1 / 2)


def test_nothing_found_agrees_and_what_is_no_number_never_does():
    nothing = frame([], [])
    assert compare([nothing], [nothing]) == Agreement(1, 0, 0.0, 1.0)
    broken = frame([[math.nan, 0.0]], [])
    found = compare([broken, nothing], [frame([[0.0, 0.0]], []), nothing])
    assert math.isnan(found.scores)
    assert not found.within(Tolerance(scores=1.0, pixels=0.0))


def test_a_frame_too_few_is_an_error():
    with pytest.raises(ValueError):
        compare([frame([], [])], [])
