"""MaskProp's propagation branch as in the paper, one instance and one cell at a time.

NumPy loops in float64, independent of the library: the definition of a
deformable convolution (27 taps of 4 corners), the sum with the features of the other
frame, the logit, the softmax over instances, the attention map. Maps are [h w C].
"""

import itertools

import numpy as np


def propagate(params, centre, other, masks, valid, *, dilations, fuse, norm):
    """Returns masks [N h w] in the other frame."""
    offsets = offset_maps(params, centre, other, dilations, norm)
    attention = sigmoid(
        conv(other, params["attention"]["kernel"]) + params["attention"]["bias"]
    )[..., 0]
    height, width = centre.shape[:2]
    logits = np.full((len(masks), height, width), -np.inf)
    for i in np.flatnonzero(valid):
        warped = warp(params, centre, masks[i], offsets, dilations)
        logits[i] = logit(params, warped + other, fuse)
    null = params.get("null_logit")
    result = np.zeros_like(logits)
    for y, x in np.ndindex(height, width):
        powers = [np.exp(logits[i, y, x]) for i in range(len(masks))]
        total = sum(powers) + (0 if null is None else np.exp(null))
        for i in np.flatnonzero(valid):
            result[i, y, x] = attention[y, x] * powers[i] / total
    return result


def offset_maps(params, centre, other, dilations, norm):
    """Returns offsets [h w 18] for each dilation: y, x of each tap, row by row."""
    difference = centre - other
    first = conv(difference, params["conv1"]["kernel"])
    shortcut = conv(difference, params["shortcut"]["kernel"])
    if norm == "group":
        first = group_norm(first, params["norm1"])
        shortcut = group_norm(shortcut, params["shortcut_norm"])
    second = conv(np.maximum(first, 0), params["conv2"]["kernel"])
    if norm == "group":
        second = group_norm(second, params["norm2"])
    hidden = np.maximum(second + shortcut, 0)
    return [conv(hidden, params[f"offsets_{d}"], d) for d in dilations]


def warp(params, centre, mask, offsets, dilations):
    """Averages deformable convolutions of masked features over dilations."""
    instance = centre * mask[..., None]
    total = np.zeros_like(centre)
    for offset, dilation in zip(offsets, dilations, strict=True):
        kernel = params[f"warp_{dilation}"]
        for y, x in np.ndindex(*mask.shape):
            for row, column in np.ndindex(3, 3):
                tap = 3 * row + column
                at_y = y - dilation + row * dilation + offset[y, x, 2 * tap]
                at_x = x - dilation + column * dilation + offset[y, x, 2 * tap + 1]
                total[y, x] += bilinear(instance, at_y, at_x) @ kernel[row, column]
    return total / len(dilations)


def bilinear(maps, y, x):
    """Samples the maps at a point; zero outside."""
    total = np.zeros(maps.shape[2])
    top, left = int(np.floor(y)), int(np.floor(x))
    for q, r in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= q < maps.shape[0] and 0 <= r < maps.shape[1]:
            total += (1 - abs(y - q)) * (1 - abs(x - r)) * maps[q, r]
    return total


def logit(params, features, fuse):
    """Returns the logit of one instance at every cell."""
    if fuse == "norm_relu":
        mean = features.mean(axis=-1, keepdims=True)
        variance = features.var(axis=-1, keepdims=True)
        features = (features - mean) / np.sqrt(variance + 1e-5)
        features = features * params["fuse_scale"] + params["fuse_bias"]
    if fuse != "linear":
        features = np.maximum(features, 0)
    return features @ params["mask_kernel"][:, 0] + params["mask_bias"]


def conv(x, kernel, dilation=1):
    """Applies a zero-padded convolution that keeps the size."""
    side = kernel.shape[0]
    half = side // 2
    result = np.zeros((*x.shape[:2], kernel.shape[3]))
    for y, x_ in np.ndindex(*x.shape[:2]):
        for row, column in np.ndindex(side, side):
            q, r = y + (row - half) * dilation, x_ + (column - half) * dilation
            if 0 <= q < x.shape[0] and 0 <= r < x.shape[1]:
                result[y, x_] += x[q, r] @ kernel[row, column]
    return result


def group_norm(x, params):
    """Normalises over cells and channels of each of 32 groups, or fewer that divide."""
    groups = np.gcd(32, x.shape[2])
    parts = x.reshape(-1, groups, x.shape[2] // groups)
    mean = parts.mean(axis=(0, 2), keepdims=True)
    variance = parts.var(axis=(0, 2), keepdims=True)
    parts = (parts - mean) / np.sqrt(variance + 1e-5)
    return parts.reshape(x.shape) * params["scale"] + params["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
