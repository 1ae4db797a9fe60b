"""Frames in the memories of IAI after each frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association.literal_frame_memory import Form, Remembered, Video
from tests.association.literal_frame_memory import remember as literal_remember
from tests.compiled import compiled
from vis_jax.association.frame_memory import Settings, empty_memory, write

FRAMES = 12


@functools.partial(compiled, static_argnames=("slots", "interval"))
def trace(new, real, *, slots, interval):
    """The memory after each frame; frame t writes keys of t and values of -t."""
    memory = empty_memory(Settings(dim=4), 1, 1, 1, slots=slots)
    memory = jax.tree.map(lambda x: x[0], memory)

    def step(memory, frame):
        number, new, real = frame
        keys = jnp.full((1, 1, 4), number.astype(jnp.float32))
        memory = write(memory, keys, -keys, new=new, real=real, interval=interval)
        return memory, memory

    return jax.lax.scan(step, memory, (jnp.arange(len(new)), new, real))[1]


def _frames(memory):
    """Frames in the global memory, by slot, after each frame."""
    used = np.minimum(memory.entered, memory.global_keys.shape[1])
    keys, values = memory.global_keys[..., 0, 0, 0], memory.global_values[..., 0, 0, 0]
    np.testing.assert_array_equal(keys, -values)
    return [
        row[:count].astype(int).tolist() for row, count in zip(keys, used, strict=True)
    ]


def _run(new=(), *, slots=FRAMES, interval=3, frames=FRAMES, padded=()):
    news, real = np.zeros(frames, bool), np.ones(frames, bool)
    news[list(new)], real[list(padded)] = True, False
    return trace(news, real, slots=slots, interval=interval)


def test_trace_with_a_new_object_in_frame_seven():
    memory = _run([7])
    expected = [[0], [0], *[[0, 2]] * 3, *[[0, 2, 5]] * 2, *[[0, 2, 5, 7]] * 3]
    assert _frames(memory) == [*expected, *[[0, 2, 5, 7, 10]] * 2]
    np.testing.assert_array_equal(memory.step, np.arange(1, 13))
    np.testing.assert_array_equal(memory.last, [0, 0, 3, 3, 3, 6, 6, 8, 8, 8, 11, 11])
    np.testing.assert_array_equal(memory.local_keys[:, 0, 0, 0], np.arange(12))
    np.testing.assert_array_equal(memory.local_values[:, 0, 0, 0], -np.arange(12.0))


def test_frames_of_a_training_sequence_see_the_first_and_the_third():
    memory = _run(frames=5, slots=2)
    assert _frames(memory)[:4] == [[0], [0], [0, 2], [0, 2]]


@pytest.mark.parametrize("new", [[0], [1], [0, 1, 4, 5, 11], [3, 9], range(12)])
@pytest.mark.parametrize("interval", [3, 2, None])
def test_trace_equals_the_slow_form(new, interval):
    memory = _run(list(new), interval=interval)
    video, form = Video(), Form(interval=interval)
    for t in range(FRAMES):
        frame = Remembered(np.full((1, 1, 4), t), np.full((1, 1, 4), -t))
        literal_remember(video, form, frame, t in new)
        assert _frames(memory)[t] == video.frames
        assert memory.last[t] == video.last


def test_without_an_interval_only_the_first_frame_stays():
    assert _frames(_run(interval=None))[-1] == [0]


def test_a_full_memory_keeps_the_first_frame_and_the_latest():
    found = _frames(_run(range(FRAMES), slots=4))
    for t, frames in enumerate(found):
        assert frames[0] == 0
        assert sorted(frames) == [0, *range(max(1, t - 2), t + 1)]
    assert _frames(_run(range(FRAMES), slots=1))[-1] == [0]


def test_padded_frames_count_for_nothing():
    found = _run([4, 9], padded=[0, 4, 5])
    real = [t for t in range(FRAMES) if t not in (0, 4, 5)]
    alone = _run([real.index(9)], frames=len(real))
    frames = [[real[i] for i in row] for row in _frames(alone)]
    assert [_frames(found)[t] for t in real] == frames
    np.testing.assert_array_equal(found.step[real], alone.step)
    np.testing.assert_array_equal(found.local_keys[5], found.local_keys[3])
    assert found.entered[0] == 0 and not found.local_keys[0].any()
