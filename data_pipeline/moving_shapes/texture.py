"""Generated textures of the moving shapes: noise, backgrounds, surfaces.

Colours are float32 RGB in 0 .. 255. Images here are [3, H, W]: NumPy is several times
faster with long rows than with rows of three.
"""

import colorsys

import numpy as np

_HUE_SPREAD = 0.04  # turns on either side of a category's hue; eight are 0.125 apart


def value_noise(
    rng: np.random.Generator, height: int, width: int, cell: float
) -> np.ndarray:
    """Generates value noise on a grid of `cell` pixels: [H, W] in [0, 1]."""
    # No matrix product, as its result may depend on the number of threads.
    row, down = _nodes(rng, height, cell)
    column, right = _nodes(rng, width, cell)
    grid = rng.random((int(row[-1]) + 2, int(column[-1]) + 2), dtype=np.float32)
    lines = grid[row] + down[:, None] * (grid[row + 1] - grid[row])
    left = np.take(lines, column, 1)
    return left + right * (np.take(lines, column + 1, 1) - left)


def _nodes(
    rng: np.random.Generator, length: int, cell: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns, per pixel, the node before it and the weight of the node after it."""
    position = np.arange(length, dtype=np.float32) / cell + rng.random(dtype=np.float32)
    node = position.astype(np.intp)
    share = position - node.astype(np.float32)
    return node, share * share * (3.0 - 2.0 * share)  # smoothstep hides the grid


def octave_noise(
    rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 4
) -> np.ndarray:
    """Sums value noise over octaves, rescaled to [0, 1]."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        total += 0.5**octave * value_noise(rng, height, width, size)
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, np.float32(1e-6))


def background(
    rng: np.random.Generator, height: int, width: int, unit: float, clutter: float
) -> np.ndarray:
    """Generates a background of noise, gradients, bands and patches, [3, H, W].

    Args:
      rng: source of every choice.
      height, width: size in pixels.
      unit: frame height in pixels, with which detail scales.
      clutter: in [0, 1], number and contrast of bands and patches.
    """
    palette = _muted_palette(rng)
    first = octave_noise(rng, height, width, unit * rng.uniform(0.3, 0.7), 5)
    second = octave_noise(rng, height, width, unit * rng.uniform(0.2, 0.5))
    image = palette[0] + first * (palette[1] - palette[0])
    _cover(image, second * np.float32(0.6), palette[2])
    image += _ramp(rng, height, width) * np.float32(rng.uniform(10, 45))
    for _ in range(rng.poisson(5 * clutter)):
        band = _band(rng, height, width, unit) * np.float32(rng.uniform(0.3, 0.9))
        _cover(image, band, _near(rng, palette, 45))
    for _ in range(rng.poisson(3 * clutter)):
        spots = octave_noise(rng, height, width, unit * rng.uniform(0.08, 0.3), 2)
        spots = np.clip((spots - np.float32(rng.uniform(0.55, 0.75))) * 12, 0, 1)
        spots *= np.float32(rng.uniform(0.4, 0.9))
        _cover(image, spots, _near(rng, palette, 55))
    grain = rng.standard_normal((height, width), dtype=np.float32)
    image += grain * np.float32(rng.uniform(1.0, 5.0))
    return np.clip(image, 0, 255, out=image)


def _cover(image: np.ndarray, share: np.ndarray, colour: np.ndarray) -> None:
    """Mixes `share` [H, W] of a colour [3, 1, 1] into the image, in place."""
    image += share * (colour - image)


def _muted_palette(rng: np.random.Generator) -> np.ndarray:
    """Three related colours of low saturation, [3, 3, 1, 1]."""
    base = rng.uniform(50, 205) + rng.uniform(-25, 25, 3)
    light, tint = rng.uniform(-50, 50, (3, 1)), rng.uniform(-22, 22, (3, 3))
    palette = np.clip(base + light + tint, 0, 255).astype(np.float32)
    return palette[..., None, None]


def _near(rng: np.random.Generator, palette: np.ndarray, spread: float) -> np.ndarray:
    """Draws a colour close to one of the palette, [3, 1, 1]."""
    colour = palette[rng.integers(len(palette))]
    colour = colour + rng.uniform(-spread, spread, (3, 1, 1))
    return np.clip(colour, 0, 255).astype(np.float32)


def _plane(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns distances along a random direction from a random point: [H, W]."""
    angle = rng.uniform(0, 2 * np.pi)
    y = (np.arange(height, dtype=np.float32) - rng.uniform(0, height)) * np.sin(angle)
    x = (np.arange(width, dtype=np.float32) - rng.uniform(0, width)) * np.cos(angle)
    return (y[:, None] + x).astype(np.float32)


def _ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns a linear gradient across the image, about -1 .. 1."""
    return _plane(rng, height, width) / np.float32(0.5 * np.hypot(height, width))


def _band(rng: np.random.Generator, height: int, width: int, unit: float) -> np.ndarray:
    """Draws the coverage, in [0, 1], of one straight band or of parallel bands."""
    distance = _plane(rng, height, width)
    half = unit * rng.uniform(0.01, 0.06)
    if rng.random() < 0.4:
        period = half * rng.uniform(3, 6)
        distance = (distance + period / 2) % period - period / 2
        return 0.5 * np.clip(half - np.abs(distance) + 0.5, 0, 1)
    return np.clip(half - np.abs(distance) + 0.5, 0, 1)


def surface(
    rng: np.random.Generator,
    size: int,
    avoid: np.ndarray,
    contrast: float,
    hue: float | None,
) -> np.ndarray:
    """Generates the texture of one instance over its square, [3, size, size].

    Args:
      rng: source of every choice.
      size: side in pixels.
      avoid: colour [3] to stay away from.
      contrast: minimum RGB distance from `avoid`.
      hue: approximate hue of both colours, in turns; None: any.
    """
    first, second = _two_colours(rng, avoid, contrast, hue)
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, size)
    first, second = first[:, None, None], second[:, None, None]
    image = first + pattern * (second - first)
    image *= 0.85 + 0.3 * octave_noise(rng, size, size, size / 3, 3)
    image *= 1.0 + 0.25 * _ramp(rng, size, size)
    return np.clip(image, 0, 255, out=image).astype(np.float32)


def _two_colours(
    rng: np.random.Generator, avoid: np.ndarray, contrast: float, hue: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws two colours on the same side of `avoid`, or the farthest draws."""
    draws = rng.uniform(10, 250, (16, 3)) if hue is None else _of_hue(rng, hue)
    distance = np.linalg.norm(draws - avoid, axis=1)
    far = np.flatnonzero(distance >= contrast)
    first = draws[far[0] if far.size else distance.argmax()]
    second = first * rng.uniform(0.45, 0.8) + rng.uniform(-25, 25, 3)
    if hue is None and first.mean() < 110:
        second = 255 - (255 - first) * rng.uniform(0.6, 0.85) + rng.uniform(-25, 25, 3)
    second = np.clip(second, 0, 255)
    if np.linalg.norm(second - avoid) < contrast:
        second = first + 0.35 * (second - first)
    return first.astype(np.float32), second.astype(np.float32)


def _of_hue(rng: np.random.Generator, hue: float) -> np.ndarray:
    """Draws sixteen saturated colours of about one hue, [16, 3]."""
    spread = rng.uniform(-_HUE_SPREAD, _HUE_SPREAD, 16)
    strength = rng.uniform([0.55, 0.6], 1.0, (16, 2))
    rows = zip((hue + spread) % 1.0, *strength.T, strict=True)
    return np.array([colorsys.hsv_to_rgb(*row) for row in rows]) * 255


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    period = size * rng.uniform(0.15, 0.35)
    wave = np.sin(_plane(rng, size, size) * np.float32(2 * np.pi / period))
    return np.clip(wave * 3 + 0.5, 0, 1)


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    turn, period = rng.uniform(0, np.pi / 2), size * rng.uniform(0.25, 0.45)
    axis = np.arange(size, dtype=np.float32) * (2 * np.pi / period)
    x = np.cos(turn) * axis - np.sin(turn) * axis[:, None]
    y = np.sin(turn) * axis + np.cos(turn) * axis[:, None]
    return np.clip(np.sin(x) * np.sin(y) * 6 + 0.5, 0, 1).astype(np.float32)


def _spots(rng: np.random.Generator, size: int) -> np.ndarray:
    noise = octave_noise(rng, size, size, size * rng.uniform(0.1, 0.2), 2)
    return np.clip((noise - 0.5) * 10 + 0.5, 0, 1)


def _marble(rng: np.random.Generator, size: int) -> np.ndarray:
    return octave_noise(rng, size, size, size * rng.uniform(0.2, 0.4))


def _shade(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.clip(0.5 + _ramp(rng, size, size), 0, 1)


PATTERNS = (_stripes, _checks, _spots, _marble, _shade)
