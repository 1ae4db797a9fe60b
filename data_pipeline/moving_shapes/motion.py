"""Difficulty levels and motion of the moving shapes.

Motion is in closed form, so any frame can be rendered on its own.
M instances, T times; lengths in pixels, time in frames, angles in radians.
"""

from typing import NamedTuple

import numpy as np


class Difficulty(NamedTuple):
    """Ranges (low, high) that a video is drawn from; `height` is the frame's."""

    instances: tuple[int, int]
    diameter: tuple[float, float]  # share of height
    stretch: float  # largest change of the aspect ratio
    lookalike: float  # probability of copying another's category and texture
    crossing: float  # probability that the path meets that of another instance
    overlap: float  # maximum fraction of frames close to an instance in front
    inside: float  # minimum fraction of frames with the centre in the frame
    speed: tuple[float, float]  # peak, height per frame
    travel: tuple[float, float]  # amplitude, share of the frame's sides
    camera: tuple[float, float]  # amplitude, share of height
    growth: float  # maximum change of the log radius
    spin: float  # maximum rotation per frame
    contrast: float  # minimum RGB distance from the mean background
    telling: bool  # every category has its own hue, as many real ones do
    clutter: float  # 0 .. 1
    noise: float  # maximum standard deviation of sensor noise
    light: float  # maximum relative change of brightness
    shutter: float  # maximum exposure time, fraction of the frame interval
    defocus: float  # maximum blur; 1 is one binomial pass of height / 96


DIFFICULTIES = {
    "easy": Difficulty(
        instances=(2, 4),
        diameter=(0.24, 0.45),
        stretch=0.08,
        lookalike=0.25,
        crossing=0.4,
        overlap=0.5,
        inside=0.6,
        speed=(0.01, 0.04),
        travel=(0.15, 0.35),
        camera=(0.0, 0.05),
        growth=0.12,
        spin=0.03,
        contrast=85.0,
        telling=True,
        clutter=0.3,
        noise=2.0,
        light=0.0,
        shutter=0.0,
        defocus=0.0,
    ),
    "medium": Difficulty(
        instances=(3, 7),
        diameter=(0.18, 0.40),
        stretch=0.15,
        lookalike=0.5,
        crossing=0.5,
        overlap=0.75,
        inside=0.45,
        speed=(0.02, 0.06),
        travel=(0.2, 0.45),
        camera=(0.03, 0.15),
        growth=0.25,
        spin=0.08,
        contrast=60.0,
        telling=False,
        clutter=0.6,
        noise=5.0,
        light=0.15,
        shutter=0.3,
        defocus=0.6,
    ),
    "hard": Difficulty(
        instances=(5, 10),
        diameter=(0.14, 0.40),
        stretch=0.2,
        lookalike=0.7,
        crossing=0.85,
        overlap=1.0,
        inside=0.45,
        speed=(0.03, 0.11),
        travel=(0.2, 0.5),
        camera=(0.08, 0.3),
        growth=0.4,
        spin=0.15,
        contrast=40.0,
        telling=False,
        clutter=1.0,
        noise=9.0,
        light=0.35,
        shutter=0.8,
        defocus=1.5,
    ),
}
# Styles of easy shapes, motion of hard ones: colour tells categories apart, overlap
# alone does not link the shapes.
DIFFICULTIES["crowd"] = DIFFICULTIES["easy"]._replace(
    instances=(4, 7),
    diameter=(0.2, 0.4),
    lookalike=0.7,
    crossing=0.85,
    overlap=1.0,
    inside=0.45,
    speed=(0.03, 0.11),
    travel=(0.2, 0.5),
    camera=(0.05, 0.2),
    noise=0.0,
)

_TRIES = 40  # per instance; later tries drop the wish to cross, then shrink


class Wave(NamedTuple):
    """`amplitude * (sin(rate * t + phase) - sin(rate * zero + phase))`, 0 at `zero`."""

    amplitude: np.ndarray  # float64 [D], one per axis
    rate: np.ndarray  # [D], per frame
    phase: np.ndarray  # [D]
    zero: float

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """Values [T, D]."""
        offset = np.sin(self.rate * self.zero + self.phase)
        angle = self.rate * np.asarray(times, np.float64)[:, None] + self.phase
        return self.amplitude * (np.sin(angle) - offset)


class Motion(NamedTuple):
    """Position, size and rotation of one instance on the screen."""

    anchor: np.ndarray  # float64 [2], x y at the anchor time
    path: Wave  # through the scene, from the anchor
    camera: Wave  # camera motion, shared by the instances of a video
    log_radius: float
    growth: Wave
    angle: float
    spin: float  # per frame

    def centres(self, times: np.ndarray) -> np.ndarray:
        """Returns x y on the screen, [T, 2]."""
        start = self.camera(np.array([self.path.zero]))
        return self.anchor + self.path(times) - (self.camera(times) - start)

    def radii(self, times: np.ndarray) -> np.ndarray:
        """Returns the radius of the silhouette, [T]."""
        return np.exp(self.log_radius + self.growth(times)[:, 0])

    def angles(self, times: np.ndarray) -> np.ndarray:
        """Returns the rotation, [T]."""
        return self.angle + self.spin * np.asarray(times, np.float64)


def draw_wave(
    rng: np.random.Generator, amplitude: np.ndarray, speed: float, zero: float
) -> Wave:
    """Draws a wave of these amplitudes [D] with peak speed near `speed` per axis."""
    rate = speed * rng.uniform(0.6, 1.0, len(amplitude)) / np.maximum(amplitude, 1e-6)
    return Wave(
        amplitude, np.minimum(rate, 0.6), rng.uniform(0, 2 * np.pi, len(rate)), zero
    )


def draw_camera(rng: np.random.Generator, level: Difficulty, height: int) -> Wave:
    """Draws the pan of the camera, at most a few pixels per frame."""
    amplitude = height * rng.uniform(*level.camera, 2)
    speed = 0.5 * height * rng.uniform(*level.speed)
    return draw_wave(rng, amplitude, speed, 0.0)


def draw_motions(
    rng: np.random.Generator,
    level: Difficulty,
    camera: Wave,
    *,
    length: int,
    height: int,
    width: int,
    twins: list[int],
) -> list[Motion | None]:
    """Draws motions, from the nearest instance to the farthest.

    Each instance is wholly visible in at least one frame: entirely within the frame,
    and clear of all those in front.

    Args:
      rng: source of every choice.
      level: the ranges to draw from.
      camera: shared motion of the camera.
      length: frames of the video.
      height, width: height and width of the frame.
      twins: index of the earlier instance that each copies, or -1.

    Returns:
      One motion per instance; None where no valid motion was found.
    """
    times = np.arange(length)
    sides = np.array([width, height])
    motions: list[Motion | None] = []
    front: list[_Track] = []
    for twin in twins:
        partner = motions[twin] if twin >= 0 else None
        if partner is None and front:
            partner = front[rng.integers(len(front))].motion
        wish = partner if rng.random() < level.crossing else None
        found = None
        for attempt in range(_TRIES):
            shrink = 0.97 ** max(attempt - _TRIES // 2, 0)
            meet = wish if attempt < _TRIES // 2 else None
            motion = _propose(rng, level, camera, length, sides, shrink, meet)
            radii = motion.radii(times) * np.exp(level.stretch)
            track = _Track(motion, motion.centres(times), radii)
            overlap = level.overlap if meet is not None else 0.6 * level.overlap
            if _acceptable(track, front, level.inside, overlap, sides):
                found = motion
                front.append(track)
                break
        motions.append(found)
    return motions


class _Track(NamedTuple):
    """A motion evaluated at every frame."""

    motion: Motion
    centres: np.ndarray  # [T, 2]
    radii: np.ndarray  # [T], of a circle around it however it is stretched


def _propose(
    rng: np.random.Generator,
    level: Difficulty,
    camera: Wave,
    length: int,
    sides: np.ndarray,
    shrink: float,
    meet: Motion | None,
) -> Motion:
    """Draws a motion; with `meet`, its anchor is near `meet` at the same time."""
    height = sides[1]
    radius = shrink * 0.5 * height * rng.uniform(*level.diameter)
    when = float(rng.integers(length))
    if meet is None:
        room = np.maximum(sides / 2 - radius * np.exp(level.stretch), 0.0)
        anchor = sides / 2 + room * rng.uniform(-1, 1, 2)
    else:
        anchor = meet.centres(np.array([when]))[0] + rng.normal(0, 0.3 * radius, 2)
    amplitude = sides * rng.uniform(*level.travel, 2)
    path = draw_wave(rng, amplitude, height * rng.uniform(*level.speed), when)
    growth = draw_wave(rng, rng.uniform(0, level.growth, 1), 0.02, when)
    turn = rng.uniform(0, 2 * np.pi)
    spin = rng.uniform(-level.spin, level.spin)
    return Motion(anchor, path, camera, float(np.log(radius)), growth, turn, spin)


def _acceptable(
    track: _Track,
    front: list[_Track],
    inside: float,
    overlap: float,
    sides: np.ndarray,
) -> bool:
    """Whether a track is fully visible once, in view for long, and overlaps little."""
    centres, radii = track.centres, track.radii[:, None]
    whole = ((centres >= radii) & (centres <= sides - radii)).all(1)
    view = ((centres >= 0) & (centres <= sides)).all(1)
    if not whole.any() or view.mean() < inside:
        return False
    close = np.zeros(len(centres), bool)
    for other in front:
        x, y = (centres - other.centres).T
        distance, reach = np.hypot(x, y), track.radii + other.radii
        whole &= distance > reach
        close |= distance < 0.75 * reach
    return bool(whole.any() and close.mean() <= overlap)
