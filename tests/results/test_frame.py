import numpy as np

from tests.results.scenes import SIZE, box, frame
from vis_jax.results.frame import LiveTracks

TRACKS = LiveTracks(
    np.array([5, 2, 9], np.int32),
    np.array([[0.1, 0.7, 0.2], [0.25, 0.25, 0], [0, 0, 1]], np.float32),
)


def test_what_a_frame_says_of_its_objects():
    masks = {2: box(1, 2, 3, 4), 0: box(0, 0, 8, 1), 1: box(0, 0, 0, 0)}
    found = frame(3, TRACKS, masks)
    assert found.ids.tolist() == [9, 5, 2]
    assert (found.labels.tolist(), found.labels.dtype) == ([2, 1, 0], np.int32)
    expected = np.array([1, 0.7, 0.25], np.float32)
    np.testing.assert_array_equal(found.scores, expected)
    boxes = [[1, 2, 4, 6], [0, 0, 8, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.boxes, np.array(boxes, np.float32))
    assert found.masks.dtype == bool
    np.testing.assert_array_equal(found.masks, np.stack(list(masks.values())))


def test_a_frame_without_objects():
    found = frame(0, TRACKS, {})
    assert found.masks.shape == (0, *SIZE) and found.boxes.shape == (0, 4)
    assert len(found.ids) == len(found.labels) == len(found.scores) == 0
