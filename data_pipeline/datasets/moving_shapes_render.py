"""Drawing of the moving shapes: a scene, and any frame of it with exact truth.

A scene is all that is drawn at random for a video. A frame is the panned background
and the instances painted over it from the farthest to the nearest; which instance owns
a pixel is decided at the pixel's centre, before any blur. M instances, T frames.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.datasets import moving_shapes_texture as texture
from data_pipeline.datasets.moving_shapes_motion import (
    Difficulty,
    Motion,
    Wave,
    draw_camera,
    draw_motions,
    draw_wave,
)
from data_pipeline.datasets.moving_shapes_silhouettes import SILHOUETTES

_OUTLINES = tuple(SILHOUETTES.values())
_SPAN = 1.25  # half side of a texture, in radii: the outline with its stretch
_BLUR_TAPS = 7


class Look(NamedTuple):
    """What an instance looks like."""

    label: int  # 0 .. K - 1
    proportion: float  # 0 .. 1, see the silhouettes
    stretch: float  # the width grows by it, the height shrinks
    surface: np.ndarray  # float32 [S, S, 3], RGB in 0 .. 255


class Scene(NamedTuple):
    """One video before it is drawn; instances in the order of their track ids."""

    height: int
    width: int
    looks: tuple[Look, ...]
    motions: tuple[Motion, ...]
    depth: np.ndarray  # int [M], instances from the farthest to the nearest
    background: np.ndarray  # float32 [H', W', 3], wider than the frame by the margin
    margin: np.ndarray  # int [2], rows and columns before the frame when at rest
    camera: Wave
    gain: np.ndarray  # float32 [T, 3], light per colour
    focus: np.ndarray  # float32 [T], strength of defocus
    shutter: float  # share of a frame's time that the shutter is open
    grain: np.ndarray  # float32 [H', W'], sensor noise, shifted from frame to frame
    grain_shift: np.ndarray  # int [T, 2]


class Rendered(NamedTuple):
    """Some frames of a video, with the truth."""

    images: np.ndarray  # uint8 [T, H, W, 3]
    masks: np.ndarray  # bool [M, T, H, W], visible pixels
    boxes: np.ndarray  # float32 [M, T, 4], x1 y1 x2 y2; 0 where absent
    present: np.ndarray  # bool [M, T]
    labels: np.ndarray  # int32 [M]
    track_ids: np.ndarray  # int32 [M], 1, 2, ..
    occlusion: np.ndarray  # float32 [M, T], hidden share; NaN where out of the frame


def draw_scene(
    rng: np.random.Generator, level: Difficulty, *, length: int, height: int, width: int
) -> Scene:
    """Draws everything that is random about a video."""
    camera = draw_camera(rng, level, height)
    rest = camera(np.array([0.0]))[0]
    # The wave is 0 at time 0 and so stays within twice its amplitude of it.
    margin = np.ceil(2 * camera.amplitude[::-1] + np.abs(rest[::-1])).astype(int) + 4
    rows, columns = (int(n) for n in np.array([height, width]) + 2 * margin)
    backdrop = texture.background(rng, rows, columns, height, level.clutter)

    count = int(rng.integers(level.instances[0], level.instances[1] + 1))
    alike = rng.random(count) < level.lookalike
    twins = [int(rng.integers(i)) if i and alike[i] else -1 for i in range(count)]
    motions = draw_motions(
        rng, level, camera, length=length, height=height, width=width, twins=twins
    )
    looks = _draw_looks(rng, level, motions, twins, backdrop.mean((0, 1)), length)
    kept = [i for i, motion in enumerate(motions) if motion is not None]
    # Instances were made from the nearest to the farthest; identities must not tell.
    order = rng.permutation(len(kept))
    depth = np.argsort(order)[::-1]
    return Scene(
        height=height,
        width=width,
        looks=tuple(looks[kept[i]] for i in order),
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


def _draw_looks(
    rng: np.random.Generator,
    level: Difficulty,
    motions: list[Motion | None],
    twins: list[int],
    avoid: np.ndarray,
    length: int,
) -> list[Look]:
    """One look per instance; a twin repeats the look of the one it copies."""
    looks: list[Look] = []
    times = np.arange(length)
    for motion, twin in zip(motions, twins, strict=True):
        if twin >= 0:
            looks.append(looks[twin])
            continue
        radius = motion.radii(times).max() if motion is not None else 16.0
        size = int(np.clip(2 * _SPAN * radius, 24, 384))
        looks.append(
            Look(
                label=int(rng.integers(len(_OUTLINES))),
                proportion=rng.random(),
                stretch=float(np.exp(rng.uniform(-level.stretch, level.stretch))),
                surface=texture.surface(rng, size, avoid, level.contrast),
            )
        )
    return looks


def _draw_gain(rng: np.random.Generator, level: Difficulty, length: int) -> np.ndarray:
    """Slow change of light, with a little of its own in each colour: [T, 3]."""
    times = np.arange(length)
    amplitude = np.full(1, level.light * rng.uniform(0.3, 1.0))
    common = draw_wave(rng, amplitude, 0.04, length / 2)(times)
    tint = draw_wave(rng, np.full(3, 0.3 * level.light), 0.02, length / 2)(times)
    return np.maximum(1.0 + common + tint, 0.3).astype(np.float32)


def _draw_focus(rng: np.random.Generator, level: Difficulty, length: int) -> np.ndarray:
    """Strength of defocus, zero in about half of the time: [T]."""
    amplitude = np.full(1, level.defocus)
    wave = draw_wave(rng, amplitude, 0.15, length * rng.random())(np.arange(length))
    return np.clip(wave[:, 0], 0, level.defocus).astype(np.float32)


def render_scene(scene: Scene, frame_ids: np.ndarray) -> Rendered:
    """Draws frames `frame_ids` [T] of a scene, each on its own."""
    M, T, H, W = len(scene.looks), len(frame_ids), scene.height, scene.width
    images = np.empty((T, H, W, 3), np.uint8)
    masks = np.empty((M, T, H, W), bool)
    occlusion = np.empty((M, T), np.float32)
    numbers = np.arange(M, dtype=np.int8)[:, None, None]
    for t, frame_id in enumerate(frame_ids):
        frame, owner, silhouette = _paint(scene, int(frame_id))
        images[t] = _expose(scene, int(frame_id), frame)
        np.equal(owner, numbers, out=masks[:, t])
        # An instance out of the frame has no share: 0 / 0.
        with np.errstate(invalid="ignore"):
            occlusion[:, t] = 1.0 - masks[:, t].sum((1, 2)) / silhouette
    boxes, present = _boxes(masks)
    labels = np.array([look.label for look in scene.looks], np.int32)
    track_ids = np.arange(1, M + 1, dtype=np.int32)
    return Rendered(images, masks, boxes, present, labels, track_ids, occlusion)


def _paint(scene: Scene, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [H, W, 3], owner of each pixel [H, W] (-1 none), silhouette areas [M]."""
    half = 0.5 * scene.shutter
    times = np.array([frame_id - half, frame_id, frame_id + half])
    camera = scene.camera(times)
    frame = _pan(scene, camera)
    owner = np.full((scene.height, scene.width), -1, np.int8)
    areas = np.zeros(len(scene.looks))
    for i in scene.depth:
        motion = scene.motions[i]
        centres = motion.centres(times)
        areas[i] = _paint_instance(
            frame,
            owner,
            scene.looks[i],
            number=int(i),
            centre=centres[1],
            radius=float(motion.radii(times[1:2])[0]),
            angle=float(motion.angles(times[1:2])[0]),
            smear=centres[2] - centres[0],
        )
    return frame, owner, areas


def _pan(scene: Scene, camera: np.ndarray) -> np.ndarray:
    """The background under the camera, averaged while the shutter is open."""
    smear = np.abs(camera[2] - camera[0]).max()
    taps = int(np.clip(np.ceil(smear), 1, _BLUR_TAPS))
    total = None
    for share in (np.arange(taps) + 0.5) / taps:
        at = camera[0] + share * (camera[2] - camera[0]) if taps > 1 else camera[1]
        view = _crop(scene, at)
        total = view if total is None else total + view
    return total if taps == 1 else total / np.float32(taps)


def _crop(scene: Scene, offset: np.ndarray) -> np.ndarray:
    """The frame's part of the background at a real offset x y, read bilinearly."""
    start = scene.margin + offset[::-1]
    row, column = np.floor(start).astype(int)
    down, right = (start - (row, column)).astype(np.float32)
    block = scene.background[row : row + scene.height + 1]
    block = block[:, column : column + scene.width + 1]
    block = block[:-1] + down * (block[1:] - block[:-1])
    return block[:, :-1] + right * (block[:, 1:] - block[:, :-1])


def _paint_instance(
    frame: np.ndarray,
    owner: np.ndarray,
    look: Look,
    *,
    number: int,
    centre: np.ndarray,
    radius: float,
    angle: float,
    smear: np.ndarray,
) -> int:
    """Blends one instance into the frame, in place; returns its area in the frame.

    Only the square around the instance is touched.
    """
    height, width = owner.shape
    reach = radius * max(look.stretch, 1 / look.stretch) + 1.5
    reach = reach + 0.5 * np.abs(smear) + 1.0
    x1, y1 = np.maximum(np.floor(centre - reach), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(centre + reach), (width, height)).astype(int)
    if x2 <= x1 or y2 <= y1:
        return 0
    x = np.arange(x1, x2, dtype=np.float32) + np.float32(0.5 - centre[0])
    y = np.arange(y1, y2, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    inside, layer = _layer(look, x, y, radius, angle)
    shape = owner[y1:y2, x1:x2]
    shape[inside] = number
    steps = int(min(np.ceil(np.abs(smear).max()), _BLUR_TAPS))
    if steps > 1:
        x = np.arange(x1, x2, dtype=np.float32)
        layer = _smeared(look, centre, radius, angle, smear, steps, (x1, y1, x2, y2))
    patch = frame[y1:y2, x1:x2]
    patch *= 1.0 - layer[..., 3:]
    patch += layer[..., :3]
    return int(inside.sum())


def _layer(
    look: Look, x: np.ndarray, y: np.ndarray, radius: float, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Silhouette [h, w] at pixel centres x [w], y [h, 1] from the instance's centre,
    and its colours with coverage, [h, w, 4], colours multiplied by coverage."""
    cos, sin = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
    u = (cos * x + sin * y) * np.float32(1 / look.stretch)
    v = (cos * y - sin * x) * np.float32(look.stretch)
    distance = _OUTLINES[look.label](u, v, look.proportion).astype(np.float32)
    cover = np.clip(0.5 - distance * np.float32(radius), 0, 1)
    size = len(look.surface)
    scale = np.float32(0.5 * size / _SPAN)
    row = np.clip(v * scale + size / 2, 0, size - 1).astype(np.intp)
    column = np.clip(u * scale + size / 2, 0, size - 1).astype(np.intp)
    layer = np.empty((*u.shape, 4), np.float32)
    np.multiply(look.surface[row, column], cover[..., None], out=layer[..., :3])
    layer[..., 3] = cover
    return distance <= 0, layer


def _smeared(
    look: Look,
    centre: np.ndarray,
    radius: float,
    angle: float,
    smear: np.ndarray,
    steps: int,
    box: tuple[int, int, int, int],
) -> np.ndarray:
    """The layer averaged along the way of the instance while the shutter is open."""
    x1, y1, x2, y2 = box
    x = np.arange(x1, x2, dtype=np.float32) + np.float32(0.5 - centre[0])
    y = np.arange(y1, y2, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    total = np.zeros((y2 - y1, x2 - x1, 4), np.float32)
    for share in (np.arange(steps) + 0.5) / steps - 0.5:
        dx, dy = (share * smear).astype(np.float32)
        total += _layer(look, x - dx, y - dy, radius, angle)[1]
    return total / np.float32(steps)


def _expose(scene: Scene, frame_id: int, frame: np.ndarray) -> np.ndarray:
    """Defocus, light and sensor noise: uint8 [H, W, 3]."""
    strength = float(scene.focus[frame_id])
    while strength > 0.05:
        frame = _soften(frame, min(strength, 1.0), max(1, round(scene.height / 96)))
        strength -= 1.0
    row, column = scene.grain_shift[frame_id]
    grain = scene.grain[row : row + scene.height, column : column + scene.width]
    frame = frame * scene.gain[frame_id] + (grain[..., None] + np.float32(0.5))
    return np.clip(frame, 0, 255, out=frame).astype(np.uint8)


def _soften(frame: np.ndarray, strength: float, step: int) -> np.ndarray:
    """A mix with the mean (1 2 1) / 4 over neighbours `step` pixels away, per axis."""
    for axis in (0, 1):
        length = frame.shape[axis]
        at = np.arange(length)
        before = np.take(frame, np.maximum(at - step, 0), axis)
        after = np.take(frame, np.minimum(at + step, length - 1), axis)
        share = np.float32(0.25 * strength)
        frame = frame * (1 - 2 * share) + share * (before + after)
    return frame


def _boxes(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tight boxes [.., 4] of masks [.., H, W] and whether there is a pixel at all."""
    columns, rows = masks.any(-2), masks.any(-1)
    present = rows.any(-1)
    x1, y1 = columns.argmax(-1), rows.argmax(-1)
    x2 = masks.shape[-1] - columns[..., ::-1].argmax(-1)
    y2 = masks.shape[-2] - rows[..., ::-1].argmax(-1)
    boxes = np.stack([x1, y1, x2, y2], -1).astype(np.float32)
    return boxes * present[..., None], present
