"""Frames of coloured squares, their detections, and a network that segments by colour.

Letters: N detections per frame.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.trackers.frames import Seen, pack
from vis_jax.structures import Clip, Detections
from vis_jax.systems.osmn.one_shot import OneShotNetwork

HEIGHT, WIDTH, SIDE = 24, 64, 6
RED, GREEN, BLUE = (200, 40, 40), (40, 200, 40), (40, 40, 200)

Square = tuple[int, int, tuple[int, int, int]]  # x, y, colour


def _prepare(images, size):
    del size
    return images.astype(jnp.float32) / 255


def _modulate(variables, guides):
    del variables
    return guides.max(axis=(1, 2))


def _segment(variables, shared, gamma, heat):
    """Segments pixels of the colour near the object's previous position.

    Without a guide (gamma 0), it segments them everywhere.
    """
    del variables
    distance = jnp.abs(shared[0][None] - gamma[:, None, None]).max(axis=-1)
    logits = jnp.where(heat > 0.01, 0.1 - distance, -1.0)
    return jnp.where(gamma.any(axis=1)[:, None, None], logits, 1.0)


NETWORK = OneShotNetwork(
    prepare=_prepare,
    modulate=_modulate,
    features=lambda variables, images: images,
    segment=_segment,
    guide_side=8,
    channels=3,
)


def clip_of(frames: list[list[Square]], padding: int = 0) -> Clip:
    """Draws squares on black, followed by `padding` frames of noise."""
    rng = np.random.default_rng(0)
    images = np.zeros((len(frames), HEIGHT, WIDTH, 3), np.uint8)
    for image, squares in zip(images, frames, strict=True):
        for x, y, colour in squares:
            image[y : y + SIDE, x : x + SIDE] = colour
    noise = rng.integers(0, 255, (padding, HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Clip(
        np.concatenate([images, noise]),
        np.arange(len(frames) + padding) < len(frames),
        np.array([HEIGHT, WIDTH], np.int32),
    )


def detections_of(
    frames: list[list[Square]], size: int, *, seed: int | None = None, padding: int = 0
) -> Detections:
    """Makes exact detections; see `pack`. The label is the brightest channel."""
    seen = [
        [
            Seen((x, y, x + SIDE, y + SIDE), int(np.argmax(colour)))
            for x, y, colour in squares
        ]
        for squares in [*frames, *[[]] * padding]
    ]
    detections = pack(seen, size, seed)
    shape = (*detections.labels.shape, SIDE, SIDE)
    rng = np.random.default_rng(seed)
    logits = np.full(shape, 5.0) if seed is None else rng.normal(size=shape) * 9
    logits = np.where(detections.valid[..., None, None], 5.0, logits)
    return detections._replace(mask_logits=logits.astype(np.float32))


def one_by_one(track, state, clip: Clip, detections: Detections):
    """Runs a tracker frame by frame; returns the final state and all tracks."""
    out = []
    for t in range(len(clip.frame_valid)):
        frame = clip._replace(
            images=clip.images[t : t + 1], frame_valid=clip.frame_valid[t : t + 1]
        )
        part = jax.tree.map(lambda x, t=t: x[t : t + 1], detections)
        state, tracked = track({}, state, frame, part)
        out.append(tracked)
    return state, out
