from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.clip_sampling import (
    batch_positions,
    draw_frames,
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
    assert not plain.flip
    assert plain.colour == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(plain.frame_ids, cropped.frame_ids)
    assert plain.short_side == cropped.short_side


@pytest.mark.parametrize("length", [1, 2, 3, 9, 30])
def test_frames_are_near_sorted_and_differ_if_they_can(length):
    rng = np.random.default_rng(0)
    counts = np.zeros(length, int)
    for _ in range(300):
        ids = draw_frames(rng, length, 3, 4)
        assert ids.dtype == np.int32
        assert ids.shape == (3,)
        assert (np.diff(ids) >= 0).all()
        assert 0 <= ids[0] <= ids[-1] <= min(length - 1, ids[0] + 8)
        assert len(set(ids.tolist())) == min(3, length)
        counts[ids] += 1
    assert (counts > 0).all()


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
