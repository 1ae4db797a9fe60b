import numpy as np
import pytest

from vis_jax.visualize.colours import track_colour
from vis_jax.visualize.draw import contact_sheet, draw_frame


def _square(y, x, side, shape=(120, 200)):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def _draw(frame, masks, track_ids, scores=None):
    scores = np.linspace(0.9, 0.4, len(masks)) if scores is None else scores
    return draw_frame(
        frame,
        np.stack(masks),
        track_ids,
        labels=[0] * len(masks),
        names=["dog"],
        scores=scores,
    )


def test_inside_is_half_transparent_and_the_outline_is_not():
    frame = np.full((120, 200, 3), 100, np.uint8)
    drawn = _draw(frame, [_square(60, 50, 40)], [3])
    colour = np.array(track_colour(3))
    np.testing.assert_array_equal(drawn[60, 50:90], np.tile(colour, (40, 1)))
    np.testing.assert_allclose(drawn[80, 70], (100 + colour) / 2, atol=1)
    np.testing.assert_array_equal(drawn[100, 50:90], 100)
    np.testing.assert_array_equal(drawn[60:100, [49, 90]], 100)
    assert (frame == 100).all(), "the frame that was given stays as it was"


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
    np.testing.assert_array_equal(one[89, 65], track_colour(1))  # its lower outline


def _label(frame, mask):
    """Where a frame shows neither itself nor the mask nor its outline."""
    drawn, colour = _draw(frame, [mask], [1]).astype(int), np.array(track_colour(1))
    padded = np.pad(mask, 1)
    core = mask & padded[:-2, 1:-1] & padded[2:, 1:-1]
    core &= padded[1:-1, :-2] & padded[1:-1, 2:]
    without = np.where(mask[..., None], colour, frame)
    without[core] = (frame[core] + colour) / 2
    return (abs(drawn - without) > 1).any(-1)


def test_label_stands_on_the_mask_and_inside_the_frame():
    frame = np.full((120, 200, 3), 128, np.uint8)
    mask = _square(60, 80, 40)
    label = _label(frame, mask)
    rows, columns = np.nonzero(label)
    assert rows.max() == 59 and rows.min() > 30
    assert abs(columns.mean() - 100) < 4
    for y, x in ((0, 0), (0, 160), (80, 0), (80, 160)):  # in the corners too
        changed = _label(frame, _square(y, x, 40))
        assert abs(int(changed.sum()) - int(label.sum())) < 0.3 * label.sum()


def test_labels_of_one_place_do_not_cover_each_other():
    frame = np.full((120, 200, 3), 128, np.uint8)
    masks = [_square(60, 80, 40)] * 3
    drawn = _draw(frame, masks, [1, 2, 3])
    for track_id in (1, 2, 3):
        patch = (drawn == track_colour(track_id)).all(-1)
        assert patch.sum() > 300  # the outlines alone have 156, of the first one


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
