import numpy as np
from pycocotools import mask as coco_mask

from vis_jax.evaluate.assemble import Tracks
from vis_jax.evaluate.masks import run_lengths

SIZE = (4, 6)


def _mask(rows):
    mask = np.zeros(SIZE[::-1], np.uint8)  # [W, H]
    mask[:, :rows] = 1
    return run_lengths(mask[None])[0]


def _areas(segmentations):
    return [int(coco_mask.area(rle)) for rle in segmentations]


def test_a_track_keeps_its_masks_and_its_last_classes():
    tracks = Tracks(3)
    tracks.update([7], np.array([[0.2, 0.1]]))
    tracks.add(7, 1, _mask(2))
    tracks.update([7, 8], np.array([[0.4, 0.3], [0.9, 0.0]]))
    tracks.add(7, 2, _mask(3))
    found = tracks.result(4, SIZE)
    assert found.labels.tolist() == [0, 0, 1]
    assert found.scores.tolist() == [0.9, 0.4, 0.3]
    assert found.track_ids.tolist() == [1, 2, 2]  # two classes of one track
    assert [_areas(one) for one in found.segmentations] == [
        [0, 0, 0, 0],
        [0, 12, 18, 0],
        [0, 12, 18, 0],
    ]
    assert all(rle["size"] == list(SIZE) for rle in found.segmentations[0])


def test_of_the_tracks_that_ended_the_best_remain():
    rng = np.random.default_rng(0)
    probs = rng.random((40, 3))
    few, all_of_them = Tracks(5), Tracks(1_000)
    for number, row in enumerate(probs, 1):
        for tracks in (few, all_of_them):
            tracks.update([number], row[None])
            tracks.add(number, number - 1, _mask(number % 4))
    best, everything = few.result(40, SIZE), all_of_them.result(40, SIZE)
    assert len(best.scores) == 5
    np.testing.assert_array_equal(best.scores, everything.scores[:5])
    assert best.segmentations == everything.segmentations[:5]


def test_no_tracks_are_an_empty_result():
    found = Tracks(3).result(2, SIZE)
    assert (len(found.labels), len(found.scores), found.segmentations) == (0, 0, [])
