"""Which frames of a video make a training clip of T frames."""

import numpy as np


def draw_near(
    rng: np.random.Generator, length: int, frames: int, frame_range: int
) -> np.ndarray:
    """A uniform key frame and others near it: int32 [T], ascending.

    The others differ if the video has enough frames within `frame_range` of the key
    frame; otherwise all of these are taken and some repeat.

    Deviation: Mask2Former draws the others with replacement; the same for T = 2.
    """
    key = int(rng.integers(length))
    low, high = max(0, key - frame_range), min(length - 1, key + frame_range)
    near = np.delete(np.arange(low, high + 1), key - low)
    others = rng.permutation(near)[: frames - 1]
    missing = frames - 1 - len(others)
    repeats = rng.integers(low, high + 1, missing)
    return np.sort(np.concatenate([[key], others, repeats])).astype(np.int32)


def draw_steps(
    rng: np.random.Generator, length: int, frames: int, max_step: int
) -> np.ndarray:
    """Frames that are each 1 to `max_step` after the one before: int32 [T].

    The first is uniform among the frames that leave room for the others, and so is
    every step. With `max_step` 1 these are consecutive frames. A video of fewer than T
    frames is taken whole: int32 [length].

    As the training sequences of Zhu et al., "Instance As Identity", ECCV 2022.

    Deviation: their code repeats the frames of a shorter video from its start.
    """
    if length <= frames:
        return np.arange(length, dtype=np.int32)
    ids = [int(rng.integers(length - frames + 1))]
    for after in reversed(range(frames - 1)):  # frames still to come behind this one
        room = length - 1 - after - ids[-1]
        ids.append(ids[-1] + int(rng.integers(1, min(max_step, room) + 1)))
    return np.array(ids, np.int32)
