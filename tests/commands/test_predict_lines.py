from vis_jax.commands.predict_lines import found_line
from vis_jax.results.video import TrackEntry

TRACKS = (
    TrackEntry(1, "cat", 0.9),
    TrackEntry(2, "dog", 0.5),
    TrackEntry(5, "cat", 0.3),
)


def test_tracks_are_counted_by_class():
    assert found_line(TRACKS, 0.3) == "3 of 3 tracks reach 0.3: 2 cat, 1 dog"
    assert found_line(TRACKS, 0.5) == "2 of 3 tracks reach 0.5: 1 cat, 1 dog"


def test_where_nothing_is_drawn_the_best_score_is_named():
    found = found_line(TRACKS, 0.95)
    assert found == "0 of 3 tracks reach 0.95; the best has 0.90 (cat)"
    near = found_line((TrackEntry(1, "cat", 0.9988),), 0.999)
    assert near == "0 of 1 tracks reach 0.999; the best has 0.99 (cat)"
    assert found_line((), 0.3) == "no track"
