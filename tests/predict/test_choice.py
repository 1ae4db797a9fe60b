import numpy as np
import pytest

from vis_jax.predict.choice import ObjectFilter
from vis_jax.results.frame import FrameResult, LiveTracks

NAMES = ("cat", "dog", "bird")
TRACKS = LiveTracks(
    np.array([4, 1, 9], np.int32),
    np.array([[0.1, 0.9, 0.0], [0.6, 0.5, 0.0], [0.0, 0.2, 0.3]], np.float32),
)
FRAME = FrameResult(0, TRACKS, np.array([2, 0, 1]), [{"c": 9}, {"c": 4}, {"c": 1}])


def _kept(classes=(), tracks=()):
    found = ObjectFilter(NAMES, classes, tracks).of(FRAME)
    assert [mask["c"] for mask in found.segmentations] == found.ids.tolist()
    return found


def test_nothing_is_left_out_unless_it_is_asked_for():
    assert _kept() is FRAME


def test_objects_of_other_classes_are_left_out_with_their_scores():
    found = _kept(["dog"])
    assert found.ids.tolist() == [4]
    probs = found.tracks.class_probs
    np.testing.assert_allclose(probs, [[0, 0.9, 0], [0, 0, 0], [0, 0, 0]])
    assert _kept(["cat", "bird"]).ids.tolist() == [9, 1]
    assert TRACKS.class_probs[0, 0] == np.float32(0.1)


def test_tracks_are_chosen_by_their_ids():
    found = _kept(tracks=[9, 1, 77])
    assert found.ids.tolist() == [9, 1]
    assert found.tracks.class_probs[0].max() == 0
    assert _kept(["cat"], [9, 1]).ids.tolist() == [1]


def test_tracks_stay_the_same_object_while_those_of_the_system_do():
    choice = ObjectFilter(NAMES, ["dog"], [])
    first, second = choice.of(FRAME), choice.of(FRAME._replace(frame=1))
    assert first.tracks is second.tracks
    none = LiveTracks(np.zeros(0, np.int32), np.zeros((0, 3), np.float32))
    assert len(choice.of(FrameResult(2, none, np.zeros(0, int), [])).ids) == 0


def test_an_unknown_class_is_named():
    expected = "--classes: expected some of cat, dog, bird, got dgo; did you mean dog"
    with pytest.raises(ValueError, match=expected):
        ObjectFilter(NAMES, ["cat", "dgo"], [])
