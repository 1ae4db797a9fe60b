"""Random choices of a moving-shapes video, made before rendering.

M instances, T frames; colours are float32 RGB in 0 .. 255.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.moving_shapes import texture as texture
from data_pipeline.moving_shapes.motion import (
    Difficulty,
    Motion,
    Wave,
    draw_camera,
    draw_motions,
    draw_wave,
)
from data_pipeline.moving_shapes.silhouettes import SILHOUETTES

SURFACE_SPAN = 1.25  # half side of a texture, in radii: the outline with its stretch


class ShapeStyle(NamedTuple):
    """Appearance of an instance."""

    label: int  # 0 .. K - 1
    proportion: float  # 0 .. 1, see the silhouettes
    stretch: float  # factor by which width grows and height shrinks
    surface: np.ndarray  # float32 [3, S, S], RGB


class Scene(NamedTuple):
    """Description of one video; instances are ordered by track id."""

    height: int
    width: int
    styles: tuple[ShapeStyle, ...]
    motions: tuple[Motion, ...]
    depth: np.ndarray  # int [M], instances from the farthest to the nearest
    background: np.ndarray  # float32 [3, H', W'], wider than the frame by the margin
    margin: np.ndarray  # int [2], rows and columns before the frame when at rest
    camera: Wave
    gain: np.ndarray  # float32 [T, 3], lighting per channel
    focus: np.ndarray  # float32 [T], strength of defocus
    shutter: float  # exposure time as a fraction of the frame interval
    grain: np.ndarray  # float32 [H', W'], sensor noise, shifted from frame to frame
    grain_shift: np.ndarray  # int [T, 2]


def draw_scene(
    rng: np.random.Generator, level: Difficulty, *, length: int, height: int, width: int
) -> Scene:
    """Draws the random choices of a video."""
    camera = draw_camera(rng, level, height)
    rest = camera(np.array([0.0]))[0]
    # The wave is 0 at time 0, so it stays within twice its amplitude.
    margin = np.ceil(2 * camera.amplitude[::-1] + np.abs(rest[::-1])).astype(int) + 4
    rows, columns = (int(n) for n in np.array([height, width]) + 2 * margin)
    backdrop = texture.background(rng, rows, columns, height, level.clutter)

    count = int(rng.integers(level.instances[0], level.instances[1] + 1))
    alike = rng.random(count) < level.lookalike
    twins = [int(rng.integers(i)) if i and alike[i] else -1 for i in range(count)]
    motions = draw_motions(
        rng, level, camera, length=length, height=height, width=width, twins=twins
    )
    styles = _draw_styles(rng, level, motions, twins, backdrop.mean((1, 2)), length)
    kept = [i for i, motion in enumerate(motions) if motion is not None]
    # Instances come from the nearest to the farthest; ids must not reveal that order.
    order = rng.permutation(len(kept))
    depth = np.argsort(order)[::-1]
    return Scene(
        height=height,
        width=width,
        styles=tuple(styles[kept[i]] for i in order),
        motions=tuple(m for i in order if (m := motions[kept[i]]) is not None),
        depth=depth,
        background=backdrop,
        margin=margin,
        camera=camera,
        gain=_draw_gain(rng, level, length),
        focus=_draw_focus(rng, level, length),
        shutter=level.shutter * rng.random(),
        grain=rng.standard_normal((rows, columns), dtype=np.float32)
        * np.float32(level.noise * rng.random()),
        grain_shift=rng.integers(0, 2 * margin + 1, (length, 2)),
    )


def _draw_styles(
    rng: np.random.Generator,
    level: Difficulty,
    motions: list[Motion | None],
    twins: list[int],
    avoid: np.ndarray,
    length: int,
) -> list[ShapeStyle]:
    """Draws one style per instance; a twin copies the style of another."""
    styles: list[ShapeStyle] = []
    times = np.arange(length)
    for motion, twin in zip(motions, twins, strict=True):
        if twin >= 0:
            styles.append(styles[twin])
            continue
        radius = motion.radii(times).max() if motion is not None else 16.0
        size = int(np.clip(2 * SURFACE_SPAN * radius, 24, 384))
        label = int(rng.integers(len(SILHOUETTES)))
        hue = label / len(SILHOUETTES) if level.telling else None
        styles.append(
            ShapeStyle(
                label=label,
                proportion=rng.random(),
                stretch=float(np.exp(rng.uniform(-level.stretch, level.stretch))),
                surface=texture.surface(rng, size, avoid, level.contrast, hue),
            )
        )
    return styles


def _draw_gain(rng: np.random.Generator, level: Difficulty, length: int) -> np.ndarray:
    """Draws slow changes of lighting, slightly different per channel: [T, 3]."""
    times = np.arange(length)
    amplitude = np.full(1, level.light * rng.uniform(0.3, 1.0))
    common = draw_wave(rng, amplitude, 0.04, 0.0)(times)
    tint = draw_wave(rng, np.full(3, 0.3 * level.light), 0.02, 0.0)(times)
    change = common + tint
    return np.maximum(1.0 + change - change.mean(0), 0.3).astype(np.float32)


def _draw_focus(rng: np.random.Generator, level: Difficulty, length: int) -> np.ndarray:
    """Draws the strength of defocus, zero about half of the time: [T]."""
    amplitude = np.full(1, level.defocus)
    wave = draw_wave(rng, amplitude, 0.15, length * rng.random())(np.arange(length))
    return np.clip(wave[:, 0], 0, level.defocus).astype(np.float32)
