"""Deformable convolution by its definition, in loops and float64."""

import numpy as np


def read(channel, y, x):
    """Samples a map [H, W] bilinearly at a position in pixels; zero outside."""
    height, width = channel.shape
    if y <= -1 or y >= height or x <= -1 or x >= width:
        return 0.0
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                value += weight * channel[row, column]
    return value


def literal_deform_conv(x, kernel, offsets, modulation, *, stride, padding, dilation):
    """Computes `ops.deform_conv`; `modulation` may be None."""
    rows, columns, width, features = kernel.shape
    channels, shared = x.shape[2], x.shape[2] // offsets.shape[2]
    per_group = features // (channels // width)
    out = np.zeros((*offsets.shape[:2], features))
    for i, j, o, c in np.ndindex(*out.shape, width):
        channel = o // per_group * width + c
        group = channel // shared
        for a, b in np.ndindex(rows, columns):
            dy, dx = offsets[i, j, group, a, b]
            value = read(
                x[..., channel],
                i * stride - padding + a * dilation + dy,
                j * stride - padding + b * dilation + dx,
            )
            if modulation is not None:
                value *= modulation[i, j, group, a, b]
            out[i, j, o] += kernel[a, b, c, o] * value
    return out
