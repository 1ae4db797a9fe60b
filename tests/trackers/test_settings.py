import re

import pytest

from vis_jax.settings import read_settings
from vis_jax.systems.osmn.system import AllTrackerSettings
from vis_jax.trackers import TRACKERS, Settings
from vis_jax.trackers.deep_sort import PUBLISHED


def read(values):
    return read_settings(AllTrackerSettings, values, "test.trackers")


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_every_tracker_is_built_from_its_defaults(name):
    tracker = TRACKERS[name](getattr(Settings(), name), 5)
    assert tracker.offline == (name == "seq")


def test_thresholds_are_the_published_ones_where_deep_sort_is_published():
    ours, theirs = read({}).deep_sort, PUBLISHED
    assert ours.max_cosine_distance == theirs.max_cosine_distance == 0.2
    assert (ours.n_init, theirs.n_init, ours.matching) == (1, 3, "score")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("iou.min_iuo", 0.3, "no such field; did you mean 'min_iou'? expected one of"),
        ("iou.losers", "old", "expected 'dropped' or 'new', got 'old'"),
        ("iou.min_iou", 0.0, "expected float, above 0 and at most 1, got 0"),
        ("iou.filter_first", 1, "expected bool, got 1"),
        ("iou.category", True, "expected float, at least 0, got True"),
        ("seq.min_length", 0, "expected int, at least 1, got 0"),
        ("seq.min_iou", 2.0, "expected float, above 0 and at most 1, got 2.0"),
        ("deep_sort.matching", "both", "expected 'cascade' or 'score', got 'both'"),
        ("deep_sort.n_init", 0, "expected int, at least 1, got 0"),
        ("deep_sort.min_score", 30.0, "expected float, 0 .. 1, got 30.0"),
        ("deep_sort.max_cosine_distance", 2.1, "expected float, 0 .. 2, got 2.1"),
        ("deep_sort.budget", None, "expected int, at least 1, got None"),
        ("osmn.overlap", "tube", "expected 'box' or 'mask', got 'tube'"),
        ("osmn.guide", "last", "expected 'first' or 'best', got 'last'"),
        ("osmn.chunk", 0, "expected int, at least 1, got 0"),
        ("osmn.min_iou", 0.0, "expected float, above 0 and at most 1, got 0.0"),
        ("osmn.losers", "kept", "expected 'dropped' or 'new', got 'kept'"),
        ("osmn_masks.min_iou", 0.0, "expected float, above 0 and at most 1, got 0.0"),
        ("osmn_masks.chunk", 0, "expected int, at least 1, got 0"),
        ("mask_track.iou", -0.5, "expected float, at least 0, got -0.5"),
    ],
)
def test_wrong_settings_are_named(field, value, message):
    tracker, name = field.split(".")
    with pytest.raises(
        ValueError, match=re.escape(f"test.trackers.{field}: {message}")
    ):
        read({tracker: {name: value}})
