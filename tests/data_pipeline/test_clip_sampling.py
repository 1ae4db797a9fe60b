from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.clip_sampling import (
    batch_positions,
    draw_near,
    draw_steps,
    draw_window,
    local_batch_size,
    plan_clip,
    resized_size,
)
from tests.recipes import data_settings
from vis_jax.settings import to_dict

CONFIG = data_settings(
    name="folder", frames=3, frame_range=4, instances=8, colour=0.1, batch_size=4
)
EXTENTS = np.array([[30, 720, 1280], [1, 480, 640], [2, 1280, 720], [9, 360, 640]])


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_plan_follows_from_seed_and_position():
    plans = [plan_clip(1, p, EXTENTS, CONFIG) for p in range(12)]
    assert same(plans[7], plan_clip(1, 7, EXTENTS, CONFIG))
    assert not all(
        same(p, plan_clip(2, k, EXTENTS, CONFIG)) for k, p in enumerate(plans)
    )
    # The order of videos and the draws of a clip are separate streams.
    assert len({plan.colour for plan in plans}) == 12


def test_every_epoch_has_every_video_once_in_its_own_order():
    extents = np.tile(EXTENTS[:1], (20, 1))
    videos = [plan_clip(0, p, extents, CONFIG).video for p in range(40)]
    assert sorted(videos[:20]) == sorted(videos[20:]) == list(range(20))
    assert videos[:20] != videos[20:]


def test_hosts_share_the_positions_of_a_batch():
    shares = [
        batch_positions(CONFIG, seed=0, start_step=2, host_index=k, host_count=2)
        for k in range(2)
    ]
    for expected in ([[8, 9], [10, 11]], [[12, 13], [14, 15]]):
        assert [list(next(share)) for share in shares] == expected


def test_switching_one_thing_leaves_the_others():
    plain = plan_clip(0, 5, EXTENTS, replace(CONFIG, flip=0.0, colour=0.0))
    cropped = plan_clip(0, 5, EXTENTS, replace(CONFIG, crop=(200, 300)))
    assert not plain.flip.any()
    assert plain.colour == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(plain.frame_ids, cropped.frame_ids)
    assert plain.short_side == cropped.short_side


@pytest.mark.parametrize("length", [1, 2, 3, 9, 30])
def test_frames_are_near_sorted_and_differ_if_they_can(length):
    rng = np.random.default_rng(0)
    counts = np.zeros(length, int)
    for _ in range(300):
        ids = draw_near(rng, length, 3, 4)
        assert ids.dtype == np.int32
        assert ids.shape == (3,)
        assert (np.diff(ids) >= 0).all()
        assert 0 <= ids[0] <= ids[-1] <= min(length - 1, ids[0] + 8)
        assert len(set(ids.tolist())) == min(3, length)
        counts[ids] += 1
    assert (counts > 0).all()


def test_clips_near_a_key_frame_are_those_of_earlier_runs():
    """Changed? Then runs that are taken up see other clips than unbroken ones."""
    plans = [plan_clip(3, p, EXTENTS, CONFIG) for p in range(4)]
    assert [plan.video for plan in plans] == [1, 2, 3, 0]
    frames = [[0, 0, 0], [0, 0, 1], [0, 1, 3], [14, 17, 20]]
    assert [plan.frame_ids.tolist() for plan in plans] == frames
    assert [plan.short_side for plan in plans] == [480, 480, 480, 480]
    brightness = [0.981435, 0.93173, 1.055479, 0.961751]
    found = [plan.colour[0] for plan in plans]
    np.testing.assert_allclose(found, brightness, atol=1e-6)


def test_consecutive_frames():
    rng = np.random.default_rng(0)
    starts = [draw_steps(rng, 8, 3, 1) for _ in range(200)]
    assert all((np.diff(ids) == 1).all() for ids in starts)
    assert {int(ids[0]) for ids in starts} == set(range(6))


def test_steps_stay_within_their_bounds_and_the_video():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_steps(rng, 9, 4, 3) for _ in range(500)])
    assert drawn.dtype == np.int32
    assert set(np.diff(drawn).ravel().tolist()) == {1, 2, 3}
    assert set(drawn[:, 0].tolist()) == set(range(6))
    assert drawn.max() == 8
    # Where there is room, all steps have the same chance.
    free = np.diff(drawn[drawn[:, 0] == 0])[:, 0]
    assert (np.bincount(free)[1:] > 15).all()


@pytest.mark.parametrize("max_step", [1, 3])
def test_a_short_video_is_taken_whole(max_step):
    for length in (1, 3, 4):
        ids = draw_steps(np.random.default_rng(0), length, 4, max_step)
        assert ids.tolist() == list(range(length))


def test_kinds_of_sampling_change_the_frames_alone():
    kinds = (
        dict(kind="near"),
        dict(kind="run"),
        dict(kind="steps"),
        dict(kind="steps", max_step=9),
    )
    plans = []
    for kind in kinds:
        config = data_settings(**{**to_dict(CONFIG), "sampling": kind})
        plans.append([plan_clip(0, p, EXTENTS, config) for p in range(40)])
    for first, *others in zip(*plans, strict=True):
        for plan in others:
            assert same(first._replace(frame_ids=0), plan._replace(frame_ids=0))
    frames = [str([plan.frame_ids for plan in some]) for some in plans]
    assert len(set(frames)) == 4


def test_clips_of_consecutive_frames_can_be_longer_than_those_near_a_frame():
    fields = {**to_dict(CONFIG), "frames": 10}
    with pytest.raises(ValueError, match=r"data\.frames: expected at most 2 \*"):
        data_settings(**fields)
    assert data_settings(**{**fields, "sampling": {"kind": "run"}}).frames == 10
    with pytest.raises(ValueError, match=r"sampling\.max_step: expected int, at least"):
        data_settings(**{**fields, "sampling": dict(kind="steps", max_step=0)})


def test_crops_stay_inside_and_keep_to_their_bounds():
    config = replace(CONFIG, crop=(400, 500))
    plans = [plan_clip(0, p, EXTENTS, config) for p in range(80)]
    for plan in plans:
        top, left, height, width = plan.crop
        _, h, w = EXTENTS[plan.video]
        assert 0 <= top <= h - height
        assert 0 <= left <= w - width
        assert min(400, h) <= height <= min(500, h)
        assert min(400, w) <= width <= min(500, w)
    assert len({plan.crop[2] for plan in plans}) > 10


def test_some_clips_are_cropped_in_pixels_of_another_size():
    config = replace(CONFIG, crop=(384, 600), crop_share=0.5, crop_at=(400, 500, 600))
    plans = [plan_clip(0, p, EXTENTS[:1], config) for p in range(200)]
    cropped = [plan.crop for plan in plans if plan.crop != (0, 0, 720, 1280)]
    assert 70 < len(cropped) < 130
    for top, left, height, width in cropped:
        assert 0 <= top <= 720 - height
        assert 0 <= left <= 1280 - width
        assert 384 * 720 / 600 - 1 < height <= 720
        assert 384 * 720 / 600 - 1 < width < 600 * 720 / 400 + 1
    assert max(width for *_, width in cropped) > 600 * 720 / 500


def test_a_zoomed_window_has_the_size_of_the_canvas_and_lies_anywhere():
    config = replace(CONFIG, zoom=(0.475, 1.0), canvas=(480, 864))
    plans = [plan_clip(0, p, EXTENTS[:1], config) for p in range(300)]
    scales = []
    for plan in plans:
        top, left, height, width = plan.crop
        assert 0 <= top <= 720 - height
        assert 0 <= left <= 1280 - width
        for cut, side, size, limit in zip(
            (height, width), (720, 1280), plan.size, (480, 864), strict=True
        ):
            assert size == limit or cut == side
        scales.append(plan.size[1] / width)
        # One scale for both axes, up to rounding to whole pixels.
        assert abs(plan.size[0] / height - scales[-1]) < 2 / 480
    assert 0.475 <= min(scales) < 0.5
    assert 0.975 < max(scales) <= 1.001
    places = {plan.crop[:2] for plan in plans if plan.crop[2] < 720}
    assert len(places) > 100
    assert {plan.size for plan in plans if plan.crop[2] == 720} != {(480, 864)}


def test_zoom_in_closed_form():
    rng = np.random.default_rng(0)
    crop, size = draw_window(rng, (720, 1280), 0.5, canvas=(480, 864))
    assert crop == (0, 0, 720, 1280)
    assert size == (360, 640)
    crop, size = draw_window(rng, (720, 1280), 1.0, canvas=(480, 864))
    assert crop[2:] == size == (480, 864)
    crop, size = draw_window(rng, (100, 3000), 2.0, canvas=(480, 864))
    assert (crop[0], crop[2:], size) == (0, (100, 432), (200, 864))


def test_frames_are_flipped_together_or_each_by_itself():
    plans = {}
    for per in ("clip", "frame"):
        config = replace(CONFIG, flip=0.5, flip_per=per)
        plans[per] = [plan_clip(0, p, EXTENTS, config) for p in range(100)]
    together = np.array([plan.flip for plan in plans["clip"]])
    single = np.array([plan.flip for plan in plans["frame"]])
    assert (together == together[:, :1]).all()
    assert (single != single[:, :1]).any(axis=1).mean() > 0.6
    assert 0.4 < single.mean() < 0.6
    for a, b in zip(plans["clip"], plans["frame"], strict=True):
        assert same(a._replace(flip=0), b._replace(flip=0))


@pytest.mark.parametrize(
    ("source", "short", "long", "canvas", "expected"),
    [
        ((720, 1280), 480, 1333, None, (480, 853)),
        ((720, 1280), 360, 1333, (480, 864), (360, 640)),
        ((1080, 1920), 800, 1333, None, (750, 1333)),
        ((360, 640), 480, 1333, None, (480, 853)),
        ((1280, 720), 480, 1333, (480, 864), (480, 270)),
        ((480, 480), 480, 1333, (480, 864), (480, 480)),
        ((2, 4000), 480, 1333, None, (1, 1333)),
        ((1, 10_000), 480, 1333, None, (1, 1333)),
    ],
)
def test_sizes_after_resizing(source, short, long, canvas, expected):
    size = resized_size(*source, short, long_side=long, canvas=canvas)
    assert size == expected


def test_sizes_fit_any_canvas():
    rng = np.random.default_rng(0)
    for height, width, h, w in rng.integers(1, 900, (500, 4)).tolist():
        size = resized_size(height, width, 480, long_side=1333, canvas=(h, w))
        assert 1 <= size[0] <= h
        assert 1 <= size[1] <= w


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 0),
        ("frames", 2.0),
        ("frames", 10),
        ("frame_range", -1),
        ("short_side", ()),
        ("short_side", 480),
        ("short_side", "480"),
        ("short_side", (480, 0)),
        ("long_side", None),
        ("canvas", (480,)),
        ("instances", True),
        ("crop", (600,)),
        ("crop", (600, 500)),
        ("zoom", (0.5, 5.0)),
        ("zoom", (0.9, 0.5)),
        ("zoom", 0.5),
        ("flip_per", "video"),
        ("flip", 1.5),
        ("flip", "yes"),
        ("colour", -0.1),
        ("batch_size", 0),
    ],
)
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(ValueError, match=rf"data\.{name}: expected .* got"):
        data_settings(**{**to_dict(CONFIG), name: value})


def test_batches_divide_over_hosts():
    assert local_batch_size(16, host_index=3, host_count=4) == 4
    with pytest.raises(ValueError, match=r"batch_size: .* multiple of the 3 hosts"):
        local_batch_size(16, host_index=0, host_count=3)
    with pytest.raises(ValueError, match=r"host_index: .* got 4"):
        local_batch_size(16, host_index=4, host_count=4)
