import numpy as np
import pytest

from vis_jax.visualize.colours import DrawStyle, line_colour, track_colour
from vis_jax.visualize.draw import contact_sheet, draw_frame
from vis_jax.visualize.trails import Trails


def _square(y, x, side, shape=(120, 200)):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def _draw(frame, masks, track_ids, scores=None, **more):
    scores = np.linspace(0.9, 0.4, len(masks)) if scores is None else scores
    return draw_frame(
        frame,
        np.stack(masks),
        track_ids,
        labels=[0] * len(masks),
        names=["dog"],
        scores=scores,
        **more,
    )


PLAIN = DrawStyle(labels=False)


def test_inside_is_half_transparent_and_the_outline_has_another_hue():
    frame = np.full((120, 200, 3), 100, np.uint8)
    drawn = _draw(frame, [_square(60, 50, 40)], [3], style=PLAIN)
    fill, line = np.array(track_colour(3)), np.array(line_colour(3))
    expected = 100 + PLAIN.opacity * (fill - 100)
    np.testing.assert_allclose(drawn[80, 70], expected, atol=1)
    # The outline lies on the edge, and is 1.5 pixels wide in a frame of this size.
    inside = np.broadcast_to(0.75 * line + 0.25 * expected, (30, 3))
    np.testing.assert_allclose(drawn[60, 55:85], inside, atol=12)
    outside = np.broadcast_to(0.75 * line + 25, (30, 3))
    np.testing.assert_allclose(drawn[59, 55:85], outside, atol=12)
    np.testing.assert_array_equal(drawn[57, 50:90], 100)
    np.testing.assert_array_equal(drawn[60:100, [47, 92]], 100)
    assert (frame == 100).all(), "the frame that was given stays as it was"


def test_outlines_have_soft_edges():
    """Along a slope there are values between that of the frame and the line's."""
    y, x = np.mgrid[:120, :200]
    drawn = _draw(
        np.zeros((120, 200, 3), np.uint8), [x + 3 * y < 200], [1], style=PLAIN
    )
    red = drawn[20:60, :, 0][(x + 3 * y >= 200)[20:60]]
    assert len(np.unique(red[red > 0])) >= 4


def test_opacity_and_the_width_of_lines_can_be_set():
    frame, mask = np.full((120, 200, 3), 100, np.uint8), _square(40, 50, 60)
    clear = _draw(frame, [mask], [3], style=PLAIN._replace(opacity=0.0))
    np.testing.assert_array_equal(clear[70, 80], 100)
    solid = _draw(frame, [mask], [3], style=PLAIN._replace(opacity=1.0))
    np.testing.assert_array_equal(solid[70, 80], track_colour(3))
    for width in (1.0, 6.0):
        drawn = _draw(frame, [mask], [3], style=PLAIN._replace(line_width=width))
        column = drawn[20:60, 80].astype(int)
        share = np.abs(column - line_colour(3)).sum(axis=1) < 30
        assert width - 1 <= share.sum() <= width + 1


def test_ground_truth_has_labels_without_scores():
    frame, masks = (
        np.zeros((120, 200, 3), np.uint8),
        np.stack([_square(50, 50, 40)] * 2),
    )
    more = dict(labels=[0, 0], names=["dog"])
    plain, truth, found = (
        draw_frame(frame, masks, [1, 2], **more, scores=scores, style=style)
        for scores, style in (
            (None, PLAIN),
            (None, DrawStyle()),
            ([0.4, 0.9], DrawStyle()),
        )
    )
    lengths = [(image != plain).any(2).sum() for image in (truth, found)]
    assert 0 < lengths[0] < 0.8 * lengths[1]
    # The last is on top, as is the one with the higher score.
    np.testing.assert_array_equal(truth[60:90, 60:80], found[60:90, 60:80])


def test_boxes_are_drawn_when_asked_for():
    mask = _square(40, 50, 60)
    mask[40:60, 50:70] = False
    frame = np.zeros((120, 200, 3), np.uint8)
    assert not _draw(frame, [mask], [3], style=PLAIN)[40, 50].any()
    drawn = _draw(frame, [mask], [3], style=PLAIN._replace(boxes=True))
    np.testing.assert_array_equal(drawn[40, 50], line_colour(3))
    np.testing.assert_array_equal(drawn[99, 109], line_colour(3))


def test_paths_fade_and_lie_on_the_masks():
    frame = np.zeros((120, 200, 3), np.uint8)
    path = [(20.0, 100.0), (100.0, 100.0), (180.0, 100.0)]
    style = PLAIN._replace(line_width=4.0)
    drawn = _draw(frame, [_square(90, 170, 25)], [1], trails={1: path}, style=style)
    old, new = drawn[100, 60].astype(int), drawn[100, 140].astype(int)
    np.testing.assert_allclose(new, line_colour(1), atol=3)
    np.testing.assert_allclose(2 * old, line_colour(1), atol=5)
    np.testing.assert_allclose(drawn[100, 176], line_colour(1), atol=3)
    assert not drawn[90, 60].any()
    one = _draw(frame, [_square(90, 170, 25)], [1], trails={1: path[:1]}, style=style)
    assert not one[100, 60].any()
    # A path that leaves the frame is cut off.
    _draw(frame, [_square(9, 9, 9)], [1], trails={1: [(-50.0, 5.0), (300.0, 900.0)]})


def test_trails_go_back_so_many_frames():
    trails = Trails(3)
    for t in range(5):
        found = trails.after([7], _square(10, 20 + 10 * t, 11)[None])
    assert found == {7: [(45.0, 15.0), (55.0, 15.0), (65.0, 15.0)]}
    none = np.zeros((0, 120, 200), bool)
    assert len(trails.after([], none)[7]) == 2  # it is hidden, and older
    assert len(trails.after([7], _square(0, 0, 3)[None])[7]) == 2
    for _ in range(3):
        gone = trails.after([], none)
    assert gone == {}
    assert Trails(0).after([7], _square(0, 0, 3)[None]) == {}


def test_colours_stay_while_a_track_moves_and_others_come_and_go():
    frame = np.zeros((120, 200, 3), np.uint8)
    first = _draw(frame, [_square(60, 10, 30)], [7])
    later = _draw(frame, [_square(60, 10, 30), _square(60, 100, 30)], [2, 7])
    np.testing.assert_array_equal(first[75, 25], later[75, 115])
    assert (later[75, 25] != later[75, 115]).any()


def test_higher_score_is_on_top_in_any_order():
    frame = np.zeros((120, 200, 3), np.uint8)
    masks = [_square(50, 50, 40), _square(60, 60, 40)]
    one = _draw(frame, masks, [1, 2], [0.9, 0.4])
    other = _draw(frame, masks[::-1], [2, 1], [0.4, 0.9])
    np.testing.assert_array_equal(one, other)
    # The lower part of the first one, which hides the outline of the other.
    fill, under = np.array(track_colour(1)), np.array(track_colour(2))
    opacity = DrawStyle().opacity
    expected = opacity * fill + (1 - opacity) * opacity * under
    np.testing.assert_allclose(one[80, 75], expected, atol=2)


def _label(frame, mask, *others):
    """Returns the place of a mask's label, among others."""
    masks, ids = [mask, *others], range(1, 2 + len(others))
    with_labels = _draw(frame, masks, ids).astype(int)
    without = _draw(frame, masks, ids, style=PLAIN)
    patch = (with_labels == track_colour(1)).all(-1) & (with_labels != without).any(-1)
    rows, columns = np.nonzero(patch)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_label_stands_on_its_mask_and_inside_the_frame():
    frame = np.full((120, 200, 3), 128, np.uint8)
    top, bottom, left, right = _label(frame, _square(60, 80, 40))
    assert 30 < top < bottom < 60
    assert abs((left + right) / 2 - 100) < 4
    size = bottom - top, right - left
    for y, x in ((0, 0), (0, 160), (80, 0), (80, 160)):  # in the corners too
        top, bottom, left, right = _label(frame, _square(y, x, 40))
        assert (bottom - top, right - left) == size


def test_a_label_does_not_hide_a_small_object():
    frame = np.full((120, 200, 3), 128, np.uint8)
    large, small = _square(60, 80, 40), _square(48, 96, 7)
    top, bottom, left, right = _label(frame, large, small)
    inside = small[top : bottom + 1, left : right + 1]
    assert not inside.any()


def test_labels_of_one_place_do_not_cover_each_other():
    frame = np.full((120, 200, 3), 128, np.uint8)
    masks = [_square(60, 80, 40)] * 5
    drawn = _draw(frame, masks, [1, 2, 3, 4, 5], style=DrawStyle(opacity=0.0))
    alone = _draw(frame, masks[:1], [1], style=DrawStyle(opacity=0.0))
    whole = (alone == track_colour(1)).all(-1).sum()
    for track_id in (1, 2, 3, 4, 5):
        patch = (drawn == track_colour(track_id)).all(-1)
        assert patch.sum() > 0.8 * whole


def test_more_labels_than_there_is_room_for():
    masks = [_square(0, 0, 20, (30, 40))] * 12
    drawn = _draw(np.zeros((30, 40, 3), np.uint8), masks, range(1, 13))
    assert drawn.shape == (30, 40, 3)


def test_empty_masks_and_no_masks_leave_the_frame():
    frame = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(_draw(frame, [np.zeros((20, 30), bool)], [1]), frame)
    none = draw_frame(
        frame, np.zeros((0, 20, 30), bool), [], labels=[], names=["dog"], scores=[]
    )
    np.testing.assert_array_equal(none, frame)


def test_a_frame_smaller_than_its_label_can_be_drawn():
    frame = np.zeros((4, 5, 3), np.uint8)
    assert _draw(frame, [np.ones((4, 5), bool)], [1]).shape == (4, 5, 3)


def test_masks_of_another_size_are_an_error():
    frame = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match=r"masks: expected bool \[N, 4, 5\]"):
        _draw(frame, [np.zeros((5, 4), bool)], [1])
    with pytest.raises(ValueError, match="track_ids: expected 1, got 2"):
        _draw(frame, [np.zeros((4, 5), bool)], [1, 2])
    with pytest.raises(ValueError, match=r"frame: expected uint8 \[H, W, 3\]"):
        _draw(frame.astype(np.float32), [np.zeros((4, 5), bool)], [1])


def test_contact_sheet_fills_rows_from_the_left():
    frames = [np.full((2, 3, 3), value, np.uint8) for value in (100, 150, 200)]
    sheet = contact_sheet(frames, columns=2, gap=1)
    assert sheet.shape == (5, 7, 3)
    expected = [[100] * 3 + [32] + [150] * 3] * 2 + [[32] * 7]
    expected += [[200] * 3 + [32] * 4] * 2
    np.testing.assert_array_equal(sheet[..., 0], expected)


def test_contact_sheet_of_unequal_frames_is_an_error():
    frames = [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    with pytest.raises(ValueError, match="frames of one size"):
        contact_sheet(frames, columns=2)
    with pytest.raises(ValueError, match="frames of one size"):
        contact_sheet([], columns=2)
