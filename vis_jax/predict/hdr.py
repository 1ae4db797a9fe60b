"""Converts high-dynamic-range video (HLG, PQ) to standard dynamic range."""

import functools

import numpy as np

# Transfer characteristics of H.273.
PQ, HLG = 16, 18
NAMES = {PQ: "PQ", HLG: "HLG"}
WHITE = 203.0  # cd/m2 of HDR diffuse white (ITU-R BT.2408, table 1)
PEAK = 1000.0  # cd/m2; brighter light is clipped
KNEE = 0.5  # fraction of diffuse white below which light is unchanged
GAMMA = 2.4  # gamma of an SDR display (ITU-R BT.1886)
SYSTEM_GAMMA = 1.2  # HLG on a display of PEAK (ITU-R BT.2100, table 5)
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # BT.2020
# Linear BT.2020 RGB to BT.709 (ITU-R BT.2087, section 3).
TO_709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)


def to_ordinary(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """Tone-maps a PQ or HLG frame to BT.709.

    Light up to KNEE is unchanged; from KNEE to PEAK it is compressed by the largest
    channel, which preserves hue.

    Args:
      pixels: uint16 [H, W, 3], BT.2020 RGB, full range.
      transfer: PQ or HLG.

    Returns:
      uint8 [H, W, 3].
    """
    light = _light(transfer)[pixels]
    if transfer == HLG:
        scene = light @ LUMINANCE
        light *= (scene ** (SYSTEM_GAMMA - 1))[..., None]
        light *= PEAK / WHITE
    light = np.maximum(light @ TO_709.T, 0)
    largest = np.maximum(light.max(axis=-1), 1e-6)
    light *= (_compressed(largest) / largest)[..., None]
    steps = np.minimum(light * _STEPS, _STEPS).astype(np.uint16)
    return _codes()[steps]


_STEPS = 65_535


@functools.cache
def _light(transfer: int) -> np.ndarray:
    """Returns float32 [65536] linear light: PQ relative to diffuse white, HLG scene.

    Source: ITU-R BT.2100, tables 4 and 5.
    """
    signal = np.arange(_STEPS + 1) / _STEPS
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = signal ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (light * 10_000 / WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    dark, bright = signal**2 / 3, (np.exp((signal - c) / a) + b) / 12
    return np.where(signal <= 0.5, dark, bright).astype(np.float32)


def _compressed(light: np.ndarray) -> np.ndarray:
    """Compresses light from 0 .. PEAK / WHITE to 0 .. 1, smooth at KNEE."""
    most = PEAK / WHITE
    above = np.clip((light - KNEE) / (most - KNEE), 0, 1)
    bend = (1 - KNEE) / (most - 1)
    return np.minimum(light, KNEE) + (1 - KNEE) * above * (1 + bend) / (above + bend)


@functools.cache
def _codes() -> np.ndarray:
    """Returns uint8 [65536]: the display-encoded value of each light level."""
    light = np.arange(_STEPS + 1) / _STEPS
    return np.round(255 * light ** (1 / GAMMA)).astype(np.uint8)
