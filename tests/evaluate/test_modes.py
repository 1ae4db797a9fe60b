"""Whole videos, linked clips and several resolutions, with one small model."""

import functools
import gc
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.compilations import count_compilations
from tests.evaluate.drawn import drawn_variables
from tests.recipes import recipe
from vis_jax.evaluate.clips import Piece
from vis_jax.evaluate.infer import make_stream
from vis_jax.evaluate.masks import Sizes
from vis_jax.evaluate.views import Resolution, merge
from vis_jax.results.collect import collect
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.ifr import build

SIDE = 32
# All clips of these tests, so that few programs are compiled.
CLIPS = dict(mode="clip", clip_length=8, clip_stride=7, clip_instances=5, clip_tracks=6)


def _config(**test):
    decoder = dict(layers=1, queries=5, dim=16, mlp_dim=16)
    test = dict(short_side=SIDE, frame_buckets=(4,), top=6) | test
    changes = {f"model.mask_decoder.{name}": value for name, value in decoder.items()}
    changes |= {f"test.{name}": value for name, value in test.items()}
    return recipe("ifr_shapes", "debug", {**changes, "model.pixel_decoder.dim": 16})


@functools.cache
def _variables():
    config = _config()
    return drawn_variables(build(config), config, 0)


def _frames(count):
    """A light square that moves over a dark ground, one frame after the other."""
    for t in range(count):
        frame = np.full((SIDE, SIDE, 3), 30, np.uint8)
        frame[8:20, t % 20 : t % 20 + 12] = (200, 180, 40)
        yield frame


def _infer(count, **test):
    config = _config(**test)
    stream = make_stream(build(config), _variables(), config.test)
    return collect(stream(_frames(count)), 6, count, (SIDE, SIDE))


def _check_equal(found, expected):
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    assert _masks(found) == _masks(expected)


def _masks(found):
    return [list(one) for one in found.segmentations]


def test_one_clip_as_long_as_the_video_is_the_whole_video():
    """But for queries below 0.05, which clips leave out: here are none."""
    whole = _infer(3)
    assert len(whole.scores) == 6
    assert whole.scores.min() > 0.05
    _check_equal(_infer(3, **CLIPS), whole)


def test_features_that_were_kept_are_those_of_the_frames():
    """Whether they come from the clip before or not, features and tracks are equal."""
    system = build(_config(**CLIPS))
    step = jax.jit(system.step)
    frames, size = np.stack(list(_frames(17))), np.full(2, SIDE, np.int32)
    clips = [
        Clip(frames[i : i + 8], np.ones(8, bool), size, np.int32(i)) for i in (0, 7, 9)
    ]
    state = system.start(clips[0])
    for clip in clips:
        state, _ = step(_variables(), state, clip)
        first = clip._replace(start=np.int32(0))
        alone, _ = step(_variables(), system.start(clip), first)
        pairs = (jax.tree.leaves(one.features) for one in (state, alone))
        for kept, made in zip(*pairs, strict=True):
            np.testing.assert_allclose(kept, made, atol=1e-4)


def _memory():
    """Arrays on the device, their bytes, and the bytes that Python and NumPy hold."""
    gc.collect()
    arrays = jax.live_arrays()
    held = tracemalloc.get_traced_memory()[0]
    return len(arrays), sum(x.nbytes for x in arrays), held


def test_four_hundred_frames_take_no_more_memory_than_a_few():
    measured = []

    def noted(count):
        for t, frame in enumerate(_frames(count)):
            if t == 50:  # all is compiled
                tracemalloc.start()
            if t % 98 == 50:
                measured.append(_memory())
            yield frame

    config = _config(**CLIPS)
    stream = make_stream(build(config), _variables(), config.test)
    try:
        with count_compilations() as names:
            found = collect(stream(noted(400)), 6, 400, (SIDE, SIDE))
    finally:
        tracemalloc.stop()
    assert sum("step" in name for name in names) == 1
    assert sum("upsample" in name for name in names) <= 1  # or by the tests before
    counts, sizes, held = zip(*measured, strict=True)
    assert len(counts) == 4
    # A clip may be on its way to the device, or all that a step returns from there: 19
    # arrays. Were one kept of each clip, there would be 42 more in the end.
    assert max(counts) - min(counts) < 30, measured
    assert max(sizes) < 1.1 * min(sizes), measured
    # A frame has 3,072 bytes: were each kept, there would be 602,112 more in the end.
    assert held[3] - held[1] < 100_000, measured
    assert {len(one) for one in found.segmentations} == {400}


def test_copies_of_one_resolution_give_its_result():
    sizes = Sizes((32, 64), (24, 60), (48, 120))
    rng = np.random.default_rng(0)
    logits = np.full((2, 5, 8, 16), -9.0, np.float32)
    for query in range(5):
        logits[:, query, query : query + 2, 3 * query : 3 * query + 3] = 9.0
    logits += rng.normal(size=logits.shape).astype(np.float32)
    probs = rng.random((5, 3)).astype(np.float32)
    order = np.array([3, 1, 4, 0, 2])

    def view(rows, scale=1):
        numbers = jnp.arange(1, 6)
        masks = logits[:, rows].repeat(scale, 2).repeat(scale, 3)
        found = Predictions(
            class_probs=jnp.asarray(probs[rows]),
            track_ids=numbers,
            valid=numbers > 0,
            slots=jnp.tile(numbers - 1, (2, 1)),
            mask_logits=jnp.asarray(masks),
        )
        canvas, content = ((scale * h, scale * w) for h, w in sizes[:2])
        clip = Clip(
            np.zeros((2, *canvas, 3), np.uint8),
            np.ones(2, bool),
            np.array(content, np.int32),
        )
        sized = Sizes(canvas, content, sizes.original)
        return Resolution(found, Piece(clip, sized, first=0, rows=2, at_once=2))

    def merged(views):
        return collect(merge(views, pivot=0, top=4), 4, 2, sizes.original)

    own = view(np.arange(5))
    one = merged([own])
    _check_equal(merged([own, own, own, own]), one)
    _check_equal(merged([own, view(order)]), one)
    # Twice as large: the same objects, with edges between the pixels.
    large = merged([own, view(order, 2)])
    np.testing.assert_array_equal(large.labels, one.labels)
    np.testing.assert_allclose(large.scores, one.scores, rtol=1e-5)
    for a, b in zip(large.segmentations, one.segmentations, strict=True):
        assert coco_mask.iou(a[:1], b[:1], [0]) > 0.9


def test_resolutions_of_a_video_are_averaged():
    found = _infer(3, tta=(SIDE, SIDE))
    assert len(found.scores) == 6
    assert {len(one) for one in found.segmentations} == {3}
    assert found.segmentations[0][0]["size"] == [SIDE, SIDE]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mode="frame"), "test.mode: expected 'video' or 'clip', got 'frame'"),
        (dict(clip_stride=4, clip_length=4), "test.clip_stride: expected less than"),
        (dict(clip_stride=0), "test.clip_stride: expected int, at least 1, got 0"),
        (dict(clip_link="iou"), "test.clip_link: expected 'siou' or 'eq4'"),
        (dict(clip_tracks=3), "test.clip_tracks: expected at least test.clip_inst"),
        (dict(tta=(SIDE,)), r"test.tta: expected \(\) with test.mode 'clip'"),
        (dict(mode="video", tta=(48, 64)), "test.tta: expected to contain test.short"),
    ],
)
def test_settings_that_cannot_be_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        build(_config(**({"mode": "clip"} | settings)))
