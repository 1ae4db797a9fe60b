"""Renders any frame of a moving-shapes scene, with exact ground truth.

A frame is the panned background with the instances painted from back to front; the
owner of a pixel is decided at its centre and at mid-exposure, before any blur. M
instances, T frames. Frames are float32 [3, H, W] in 0 .. 255 until exposed.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.mask_boxes import mask_boxes
from data_pipeline.moving_shapes.scene import SURFACE_SPAN, Scene, ShapeStyle
from data_pipeline.moving_shapes.silhouettes import SILHOUETTES

_OUTLINES = tuple(SILHOUETTES.values())
_BLUR_TAPS = 7


class Pose(NamedTuple):
    """Pose of an instance during the exposure."""

    centre: np.ndarray  # float64 [2], x y in pixels at mid-exposure
    smear: np.ndarray  # float64 [2], motion of the centre during the exposure
    radius: float  # pixels
    angle: float  # radians


class Rendered(NamedTuple):
    """Rendered frames of a video, with ground truth."""

    images: np.ndarray  # uint8 [T, H, W, 3]
    masks: np.ndarray  # bool [M, T, H, W], visible pixels
    boxes: np.ndarray  # float32 [M, T, 4], x1 y1 x2 y2; 0 where absent
    present: np.ndarray  # bool [M, T]
    labels: np.ndarray  # int32 [M]
    track_ids: np.ndarray  # int32 [M], 1, 2, ..
    occlusion: np.ndarray  # float32 [M, T], occluded fraction; NaN outside the frame


def render_scene(scene: Scene, frame_ids: np.ndarray) -> Rendered:
    """Renders frames `frame_ids` [T] of a scene independently."""
    M, T, H, W = len(scene.styles), len(frame_ids), scene.height, scene.width
    images = np.empty((T, H, W, 3), np.uint8)
    masks = np.empty((M, T, H, W), bool)
    occlusion = np.empty((M, T), np.float32)
    numbers = np.arange(M, dtype=np.int8)[:, None, None]
    for t, frame_id in enumerate(frame_ids):
        frame, owner, silhouette = _paint(scene, int(frame_id))
        images[t] = _expose(scene, int(frame_id), frame)
        np.equal(owner, numbers, out=masks[:, t])
        # 0 / 0 for an instance outside the frame.
        with np.errstate(invalid="ignore"):
            occlusion[:, t] = 1.0 - masks[:, t].sum((1, 2)) / silhouette
    boxes, present = mask_boxes(masks)
    labels = np.array([style.label for style in scene.styles], np.int32)
    track_ids = np.arange(1, M + 1, dtype=np.int32)
    return Rendered(images, masks, boxes, present, labels, track_ids, occlusion)


def _paint(scene: Scene, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paints colours [3, H, W], pixel owners [H, W] (-1 none), silhouette areas [M]."""
    half = 0.5 * scene.shutter
    times = np.array([frame_id - half, frame_id, frame_id + half])
    frame = _pan(scene, scene.camera(times))
    owner = np.full((scene.height, scene.width), -1, np.int8)
    areas = np.zeros(len(scene.styles))
    for i in scene.depth:
        motion = scene.motions[i]
        before, now, after = motion.centres(times)
        pose = Pose(
            centre=now,
            smear=after - before,
            radius=float(motion.radii(times[1:2])[0]),
            angle=float(motion.angles(times[1:2])[0]),
        )
        areas[i] = _paint_instance(frame, owner, scene.styles[i], int(i), pose)
    return frame, owner, areas


def _pan(scene: Scene, offsets: np.ndarray) -> np.ndarray:
    """Pans the background by camera offsets [3, 2]: opening, middle, closing."""
    smear = offsets[2] - offsets[0]
    taps = _taps(smear)
    if taps == 1:
        return _crop(scene, offsets[1])
    total = np.zeros((3, scene.height, scene.width), np.float32)
    for share in (np.arange(taps) + 0.5) / taps:
        total += _crop(scene, offsets[0] + share * smear)
    return total / np.float32(taps)


def _taps(smear: np.ndarray) -> int:
    """Returns the motion-blur samples: one per pixel of motion, at most 7."""
    return int(np.clip(np.ceil(np.abs(smear).max()), 1, _BLUR_TAPS))


def _crop(scene: Scene, offset: np.ndarray) -> np.ndarray:
    """Samples the background bilinearly at a real offset x y."""
    start = scene.margin + offset[::-1]
    row, column = np.floor(start).astype(int)
    down, right = (start - (row, column)).astype(np.float32)
    block = scene.background[:, row : row + scene.height + 1]
    block = block[..., column : column + scene.width + 1]
    block = block[:, :-1] + down * (block[:, 1:] - block[:, :-1])
    return block[..., :-1] + right * (block[..., 1:] - block[..., :-1])


def _paint_instance(
    frame: np.ndarray, owner: np.ndarray, style: ShapeStyle, number: int, pose: Pose
) -> int:
    """Blends one instance into frame and owner, in place; returns its visible area.

    Only the square around the instance is touched.
    """
    height, width = owner.shape
    reach = pose.radius * max(style.stretch, 1 / style.stretch) + 2.5
    reach = reach + 0.5 * np.abs(pose.smear)
    x1, y1 = np.maximum(np.floor(pose.centre - reach), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(pose.centre + reach), (width, height)).astype(int)
    if x2 <= x1 or y2 <= y1:
        return 0
    x = np.arange(x1, x2, dtype=np.float32) + np.float32(0.5 - pose.centre[0])
    y = np.arange(y1, y2, dtype=np.float32)[:, None] + np.float32(0.5 - pose.centre[1])
    inside, layer = _layer(style, pose, x, y)
    owner[y1:y2, x1:x2][inside] = number
    taps = _taps(pose.smear)
    if taps > 1:
        layer = np.zeros_like(layer)
        for share in (np.arange(taps) + 0.5) / taps - 0.5:
            dx, dy = (share * pose.smear).astype(np.float32)
            layer += _layer(style, pose, x - dx, y - dy)[1]
        layer /= np.float32(taps)
    patch = frame[:, y1:y2, x1:x2]
    patch *= 1.0 - layer[3]
    patch += layer[:3]
    return int(inside.sum())


def _layer(
    style: ShapeStyle, pose: Pose, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Renders an instance at pixel centres x [w], y [h, 1] relative to its centre.

    Returns:
      The silhouette, bool [h, w], and colours times coverage with the coverage as
      fourth channel, float32 [4, h, w].
    """
    cos = np.float32(np.cos(pose.angle) / pose.radius)
    sin = np.float32(np.sin(pose.angle) / pose.radius)
    u = (cos * x + sin * y) * np.float32(1 / style.stretch)
    v = (cos * y - sin * x) * np.float32(style.stretch)
    distance = _OUTLINES[style.label](u, v, style.proportion).astype(np.float32)
    cover = np.clip(0.5 - distance * np.float32(pose.radius), 0, 1)
    size = style.surface.shape[-1]
    scale = np.float32(0.5 * size / SURFACE_SPAN)
    row = np.clip(v * scale + size / 2, 0, size - 1).astype(np.intp)
    column = np.clip(u * scale + size / 2, 0, size - 1).astype(np.intp)
    layer = np.empty((4, *u.shape), np.float32)
    texels = style.surface.reshape(3, -1)
    np.multiply(np.take(texels, row * size + column, 1), cover, out=layer[:3])
    layer[3] = cover
    return distance <= 0, layer


def _expose(scene: Scene, frame_id: int, frame: np.ndarray) -> np.ndarray:
    """Applies defocus, lighting and sensor noise: uint8 [H, W, 3]."""
    strength = float(scene.focus[frame_id])
    while strength > 0.05:
        frame = _soften(frame, min(strength, 1.0), max(1, round(scene.height / 96)))
        strength -= 1.0
    row, column = scene.grain_shift[frame_id]
    grain = scene.grain[row : row + scene.height, column : column + scene.width]
    frame = frame * scene.gain[frame_id][:, None, None] + (grain + np.float32(0.5))
    return np.moveaxis(np.clip(frame, 0, 255, out=frame).astype(np.uint8), 0, -1)


def _soften(frame: np.ndarray, strength: float, step: int) -> np.ndarray:
    """Blends with a (1 2 1) / 4 filter of neighbours `step` pixels away, per axis."""
    share = np.float32(0.25 * strength)
    _, height, width = frame.shape
    edge = np.pad(frame, ((0, 0), (step, step), (0, 0)), "edge")
    both = edge[:, :height] + edge[:, -height:]
    frame = frame * (1 - 2 * share) + share * both
    edge = np.pad(frame, ((0, 0), (0, 0), (step, step)), "edge")
    both = edge[..., :width] + edge[..., -width:]
    return frame * (1 - 2 * share) + share * both
