"""A video through a system, clip by clip, whatever the length of a clip."""

import functools
import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate.drawn import drawn_variables
from tests.recipes import recipe
from vis_jax.evaluate.infer import make_stream
from vis_jax.results.clock import Clock
from vis_jax.results.collect import collect
from vis_jax.structures import Clip, Predictions, Render, Window
from vis_jax.systems import SYSTEMS
from vis_jax.systems.system import System, TestSettings

ROOT = Path(__file__).parents[2]
SIDE, FRAMES = 64, 6


# Online systems: as many detections and tracks as there can be, and the whole video.
ONLINE = {
    "condinst": {"score": 0.0},
    "mask_track_rcnn": {"score": 0.0},
    "rgnn_vis": {"score": 0.0, "match": 0.02, "start": 0.02, "mode": "video"},
    "yolact": {"score": 0.0},
}


def _config(name, **test):
    values = {"short_side": SIDE, "frame_buckets": (8,)} | ONLINE[name] | test
    return recipe(
        f"{name}_shapes",
        "debug",
        {f"test.{field}": value for field, value in values.items()},
    )


@functools.cache
def _variables(name):
    config = _config(name)
    return drawn_variables(SYSTEMS[name].build(config), config, 1)


def _video():
    """Two squares on noise."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60, (FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
    for t, frame in enumerate(frames):
        frame[8:24, 4 * t : 4 * t + 16] = (200, 180, 40)
        frame[40:56, 40 - 4 * t : 56 - 4 * t] = (40, 60, 220)
    return frames


def _frames(name, **test):
    config = _config(name, **test)
    system = SYSTEMS[name].build(config)
    return list(make_stream(system, _variables(name), config.test)(_video()))


@pytest.mark.parametrize("name", ONLINE)
def test_the_length_of_a_clip_changes_nothing(name):
    whole = _frames(name)
    assert [frame.frame for frame in whole] == list(range(FRAMES))
    assert sum(len(frame.rows) for frame in whole) > FRAMES
    final = collect(whole, 10, FRAMES, (SIDE, SIDE))
    for length in (1, 4):  # the last clip of four is half empty
        clips = _frames(name, mode="clip", clip_length=length)
        for ours, theirs in zip(clips, whole, strict=True):
            assert ours.frame == theirs.frame
            np.testing.assert_array_equal(ours.ids, theirs.ids)
            # Masks of an untrained network: pixels at the threshold may round.
            differ = np.count_nonzero(ours.masks != theirs.masks)
            assert differ <= 1e-3 * ours.masks.size
        found = collect(clips, 10, FRAMES, (SIDE, SIDE))
        np.testing.assert_array_equal(found.track_ids, final.track_ids)
        np.testing.assert_array_equal(found.labels, final.labels)
        np.testing.assert_allclose(found.scores, final.scores, rtol=1e-5)


def _late(delay):
    """Says of a frame, `delay` frames later, how light it was: rows that are full."""

    def start(clip: Clip):
        shape = (delay, *clip.images.shape[1:3])
        return jnp.zeros(shape, jnp.float32)

    def step(variables, state, clip: Clip):
        light = clip.images[..., 0].astype(jnp.float32) - 0.5
        frames = jnp.concatenate([state, light])
        rows = frames.shape[0]
        found = Predictions(
            class_probs=jnp.full((1, 1), 0.5),
            track_ids=jnp.ones(1, jnp.int32),
            valid=jnp.ones(1, bool),
            slots=jnp.zeros((rows, 1), jnp.int32),
            mask_logits=frames[:, None],
        )
        length = clip.images.shape[0]
        return frames[length : length + delay], found

    nothing = lambda *_: None  # noqa: E731
    return System(nothing, nothing, start, step, Window(2, 2, delay))


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_what_comes_late_is_said_of_the_right_frame(count, delay):
    frames = np.zeros((count, 32, 32, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[: t + 1] = 1
    stream = make_stream(_late(delay), {}, TestSettings(short_side=32))
    found = list(stream(frames))
    assert [one.frame for one in found] == list(range(count))
    assert [int(one.masks[0, :, 0].sum()) for one in found] == list(range(1, count + 1))
    assert list(stream(frames[:0])) == []


def test_masks_are_rendered_as_the_system_says():
    """Two tracks that fill the frame; the second is surer."""

    def step(variables, state, clip: Clip):
        found = Predictions(
            class_probs=jnp.full((2, 1), 0.5),
            track_ids=jnp.arange(1, 3),
            valid=jnp.ones(2, bool),
            slots=jnp.tile(jnp.arange(2), (2, 1)),
            mask_logits=jnp.tile(
                jnp.asarray([1.0, 2.0])[None, :, None, None], (2, 1, 4, 4)
            ),
        )
        return state, found

    base = _late(0)._replace(start=lambda clip: (), step=step)
    for overlap, areas in (("independent", [9, 9]), ("argmax", [0, 9]), ("rank", [9])):
        system = base._replace(render=Render(overlap))
        stream = make_stream(system, {}, TestSettings(size=(32, 32)))
        for frame in stream(np.zeros((2, 3, 3, 3), np.uint8)):
            assert frame.masks.sum((1, 2)).tolist() == areas


def _images(count):
    for t in range(count):
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[: t + 1] = 1
        yield frame


def test_frames_come_out_while_the_video_is_read():
    """Endless, and the last frames before a pause do not wait for its end."""
    stream = make_stream(_late(0), {}, TestSettings(short_side=32))
    endless = stream(itertools.chain(_images(9), itertools.cycle(_images(1))))
    assert [next(endless).frame for _ in range(20)] == list(range(20))
    endless.close()
    go_on = threading.Event()

    def with_pause():
        yield from _images(6)
        assert go_on.wait(60)
        yield from _images(1)

    clock = Clock()
    paused = stream(with_pause(), clock=clock)
    # The third clip follows once it is known whether another one comes.
    assert [next(paused).frame for _ in range(4)] == [0, 1, 2, 3]
    go_on.set()
    assert [one.frame for one in paused] == [4, 5, 6]
    assert set(clock.seconds) == {"reading", "compiling", "model", "masks"}
    assert all(seconds > 0 for seconds in clock.seconds.values())


def test_objects_without_a_free_track_are_told_once_and_counted(caplog):
    """A clip of two frames that each loses one object."""

    def step(variables, state, clip: Clip):
        found = Predictions(
            class_probs=jnp.ones((1, 1)),
            track_ids=jnp.ones(1, jnp.int32),
            valid=jnp.ones(1, bool),
            slots=jnp.full((2, 1), -1),
            mask_logits=jnp.zeros((2, 1, 4, 4)),
            lost=state,
        )
        return state + 1, found

    start = lambda clip: jnp.zeros((), jnp.int32)  # noqa: E731
    system = _late(0)._replace(start=start, step=step, limit="model.places")
    stream = make_stream(system, {}, TestSettings(short_side=32))
    with caplog.at_level("WARNING", logger="absl"):
        assert len(list(stream(_images(6)))) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "frame 2: no track is free for another object: raise model.places",
        "2 objects of a video found no free track",
    ]


def test_an_error_of_the_reader_comes_after_the_clips_before_it():
    def broken():
        yield from _images(5)
        time.sleep(0.3)
        raise ValueError("frame 5: broken")

    stream, found = make_stream(_late(0), {}, TestSettings(short_side=32)), []
    with pytest.raises(ValueError, match="frame 5: broken"):
        for frame in stream(broken()):
            found.append(frame.frame)
    assert found == [0, 1, 2, 3]


def test_nobody_waits_for_a_reader_that_is_stuck():
    """Neither who leaves early, nor the end of the process."""
    code = """
import sys, time
from contextlib import closing
from vis_jax.evaluate.ahead import Ahead
def stuck():
    yield 1
    time.sleep(600)
with closing(Ahead(stuck())) as ahead:
    assert ahead.take() == 1
sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert done.returncode == 7


def test_the_thread_ends_with_the_stream():
    stream = make_stream(_late(0), {}, TestSettings(short_side=32))
    endless = stream(itertools.cycle(_images(1)))
    next(endless)
    assert "ahead" in {thread.name for thread in threading.enumerate()}
    endless.close()
    for _ in range(100):
        if "ahead" not in {thread.name for thread in threading.enumerate()}:
            return
        time.sleep(0.05)
    raise AssertionError("a thread is left")
