"""Appearance of detections and frames in the literal RGNNVIS: pooling, psi and phi.

Part of the slow reference described in `literal_graph`. Decisions where the sources are
silent: positions are added at every resolution, with half of a level's channels for y
and half for x, and also to the maps that x_0 averages, even if x_0 leaves out phi.
"""

import numpy as np

from tests.association.literal_layers import (
    Options,
    Weights,
    linear,
    residual,
    softmax,
)


def bilinear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Samples a plane (h, w) at the pixel centres of a grid of `size`, without blur."""
    h, w = plane.shape
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        y = np.clip((i + 0.5) * h / size[0] - 0.5, 0, h - 1)
        x = np.clip((j + 0.5) * w / size[1] - 0.5, 0, w - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
        dy, dx = y - top, x - left
        upper = (1 - dx) * plane[top, left] + dx * plane[top, right]
        lower = (1 - dx) * plane[bottom, left] + dx * plane[bottom, right]
        out[i, j] = (1 - dy) * upper + dy * lower
    return out


def pool_weights(
    logits: np.ndarray, valid: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns the weight of each pixel in each detection: (N, *size), 0 for padding.

    Valid detections and a background of logit 10 compete for each pixel; the shares of
    a detection are divided by their sum plus 1e-4.

    Args:
      logits: (N, h, w) mask logits, 10 added inside the box.
      valid: (N) bool.
      size: of the feature map.
    """
    weights = np.zeros((len(valid), *size))
    present = [n for n in range(len(valid)) if valid[n]]
    planes = [bilinear(logits[n], size) for n in present]
    for i, j in np.ndindex(*size):
        shares = softmax(np.array([10.0] + [plane[i, j] for plane in planes]))
        for n, share in zip(present, shares[1:], strict=True):
            weights[n, i, j] = share
    for n in present:
        weights[n] /= weights[n].sum() + 1e-4
    return weights


def sine_positions(h: int, w: int, channels: int) -> np.ndarray:
    """Returns DETR's encoding (h, w, channels): first half of the channels y, then x.

    A position 1, 2, .. is divided by the number of positions plus 1e-6 and multiplied
    by 2 pi. Channels alternate sine and cosine of one frequency.
    """
    half = channels // 2
    out = np.zeros((h, w, channels))
    for i, j, k in np.ndindex(h, w, half):
        frequency = 10000.0 ** (2 * (k // 2) / half)
        wave = np.cos if k % 2 else np.sin
        out[i, j, k] = wave(2 * np.pi * (i + 1) / (h + 1e-6) / frequency)
        out[i, j, half + k] = wave(2 * np.pi * (j + 1) / (w + 1e-6) / frequency)
    return out


def psi(
    weights: Weights, options: Options, name: str, features: np.ndarray
) -> np.ndarray:
    """Applies a 1x1 convolution to one level (h, w, channels) and adds positions."""
    h, w, _ = features.shape
    out = np.zeros((h, w, len(weights[f"{name}/b"])))
    for i, j in np.ndindex(h, w):
        out[i, j] = linear(weights, name, features[i, j])
    if options.positions:
        out = out + sine_positions(h, w, out.shape[-1])
    return out


def detection_appearance(
    weights: Weights,
    options: Options,
    features: tuple[np.ndarray, np.ndarray],
    logits: np.ndarray,
    valid: np.ndarray,
) -> np.ndarray:
    """Computes x_n: (N, A), zero for padded detections.

    Args:
      features: C4 and C5, each (h, w, channels).
      logits, valid: as for `pool_weights`.
    """
    pooled = []
    for name, level in zip(("psi4", "psi5"), features, strict=True):
        maps = psi(weights, options, name, level)
        shares = pool_weights(logits, valid, maps.shape[:2])
        rows = np.zeros((len(valid), maps.shape[-1]))
        for n, i, j in np.ndindex(*shares.shape):
            rows[n] += shares[n, i, j] * maps[i, j]
        pooled.append(rows)
    x = np.concatenate(pooled, axis=-1)
    for n in range(len(valid)):
        x[n] = residual(weights, "phi", x[n], layers=3) if valid[n] else 0.0
    return x


def frame_appearance(
    weights: Weights, options: Options, features: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Computes x_0: (A), the mean over each level's pixels, with or without phi."""
    means = []
    for name, level in zip(("psi4", "psi5"), features, strict=True):
        means.append(psi(weights, options, name, level).mean((0, 1)))
    x0 = np.concatenate(means)
    if options.empty_appearance == "described":
        return residual(weights, "phi", x0, layers=3)
    return x0
