import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from tests.recipes import recipe
from vis_jax.commands import predict_modes
from vis_jax.commands.predict_modes import for_source, memory_line, mode_is_set
from vis_jax.evaluate import memory
from vis_jax.evaluate.infer import make_program
from vis_jax.predict.sources import from_arrays
from vis_jax.structures import Predictions, Render, Window
from vis_jax.systems.system import System, TestSettings

FRAMES = np.zeros((9, 20, 30, 3), np.uint8)
BUCKETS = {"test.frame_buckets": (4, 8)}


def _modes(name, source, *, fixed=False, **changes):
    config = recipe(name, "debug", BUCKETS | changes)
    found, note = for_source(config, source, fixed=fixed)
    assert found == dataclasses.replace(config, test=found.test)
    return config.test.mode, found.test.mode, note


def test_a_video_above_the_largest_bucket_goes_clip_by_clip():
    short, long = from_arrays(FRAMES[:8]), from_arrays(FRAMES, name="nine")
    assert _modes("ifr_shapes", short) == ("video", "video", None)
    before, after, note = _modes("ifr_shapes", long)
    assert (before, after) == ("video", "clip")
    assert note == (
        "nine: 9 frames, more than test.frame_buckets has (8): goes clip by clip, 3"
        " frames each; --config.test.mode=video takes it whole"
    )
    assert _modes("ifr_shapes", long, fixed=True) == ("video", "video", None)
    several = {"test.tta": (96,), "test.short_side": 96}
    assert _modes("ifr_shapes", long, **several) == ("video", "video", None)


def test_what_a_file_says_of_its_length_counts_and_so_does_no_end():
    frames = from_arrays(iter(FRAMES))
    said = dataclasses.replace(frames, live=False, said_frames=9)
    assert _modes("ifr_shapes", said)[1] == "clip"
    silent = dataclasses.replace(said, said_frames=None)
    assert _modes("ifr_shapes", silent)[1] == "video"
    _, mode, note = _modes("ifr_shapes", frames)
    assert mode == "clip" and "video: has no known end: goes" in note


def test_a_tracker_that_has_to_see_the_whole_video_does():
    name, seq = "mask_track_rcnn_shapes", {"test.tracker": "seq"}
    assert _modes(name, from_arrays(FRAMES), **seq) == ("video", "video", None)
    assert _modes(name, from_arrays(FRAMES))[1] == "clip"


def test_a_mode_of_the_command_line_is_found():
    values = flags.FlagValues()
    assert not mode_is_set(values)
    flags.DEFINE_string("config.test.mode", "video", "", flag_values=values)
    values(["predict"])
    assert not mode_is_set(values)
    values(["predict", "--config.test.mode=video"])
    assert mode_is_set(values)


def _program(window):
    """Squares its frames as numbers."""

    def step(variables, state, clip):
        squares = clip.images.astype(jnp.float32) ** 2
        found = Predictions(
            class_probs=jnp.zeros((1, 1)),
            track_ids=jnp.ones(1, jnp.int32),
            valid=jnp.ones(1, bool),
            slots=jnp.zeros((len(clip.images), 1), jnp.int32),
            mask_logits=squares[:, None, ..., 0],
        )
        return state, found

    def nothing(*unused):
        raise AssertionError

    return make_program(
        System(nothing, nothing, lambda clip: (), step, window, Render()), {}
    )


def test_memory_is_that_of_one_step_at_the_size_that_the_model_sees(monkeypatch):
    test, source = TestSettings(short_side=32), from_arrays(FRAMES)
    whole = memory_line(_program(Window(None, None, buckets=(16,))), source, test)
    assert whole.startswith("about 622.7 kB for 16 frames at once, 38.9 kB a frame; ")
    monkeypatch.setattr(memory, "machine_bytes", lambda: 200_000)
    clips = memory_line(_program(Window(1, 1)), source, test)
    assert clips.endswith("for 1 frame at once, 38.9 kB a frame; there are 200.0 kB")
    expected = (
        r"video: expected a video that fits into 200\.0 kB, got about 622\.7 kB for 16"
        r" frames at once, 38\.9 kB a frame; --config\.test\.mode=clip takes it clip"
    )
    with pytest.raises(ValueError, match=expected):
        memory_line(_program(Window(None, None, buckets=(16,))), source, test)
    unknown = dataclasses.replace(source, num_frames=None)
    line = memory_line(_program(Window(None, None, buckets=(16,))), unknown, test)
    assert line == "not known before the video is read"
    assert predict_modes.UNSURE * 200_000 < 622_600
