"""Feed-forward part on a map of tokens: loops, in float64.

Weights are our parameters by path.
"""

import math

import numpy as np

Weights = dict[str, np.ndarray]


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Returns x W + b for one token, merging the layer's heads."""
    kernel = weights[f"{name}/kernel"].reshape(len(x), -1)
    return x @ kernel + weights[f"{name}/bias"].reshape(-1)


def each(function, x: np.ndarray) -> np.ndarray:
    """Applies a function to each token of a map."""
    height, width = x.shape[:2]
    return np.array([[function(x[i, j]) for j in range(width)] for i in range(height)])


def gated_ffn(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Applies linear1, group norm, GELU, gate, convolution, linear2: (h, w, C)."""
    x = each(lambda token: linear(weights, "linear1", token), x)
    x = group_norm(weights["norm/scale"], weights["norm/bias"], x)
    x = np.vectorize(lambda t: t * (1 + math.erf(t / math.sqrt(2))) / 2)(x)
    x = channel_gate(x, *(weights[f"gate/{n}"] for n in ("alpha", "gamma", "beta")))
    x = depthwise(weights["conv/kernel"][:, :, 0], x)
    return each(lambda token: linear(weights, "linear2", token), x)


def group_norm(scale: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Normalises 32 groups of channels, each over the whole map."""
    size = x.shape[-1] // 32
    out = np.zeros_like(x)
    for group in range(32):
        part = slice(group * size, (group + 1) * size)
        centred = x[..., part] - x[..., part].mean()
        normed = centred / math.sqrt((centred**2).mean() + 1e-5)
        out[..., part] = normed * scale[part] + bias[part]
    return out


def channel_gate(
    x: np.ndarray, alpha: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> np.ndarray:
    """Multiplies channels by 1 + tanh(e g + b): (h, w, C)."""
    channels = range(x.shape[-1])
    e = [alpha[c] * math.sqrt((x[..., c] ** 2).sum() + 1e-5) for c in channels]
    root = math.sqrt(sum(value**2 for value in e) / len(e) + 1e-5)
    gates = [1 + math.tanh(e[c] * gamma[c] / root + beta[c]) for c in channels]
    return x * np.array(gates)


def depthwise(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Convolves each channel with its own kernel (k, k, C), zero-padded: (h, w, C)."""
    height, width, _ = x.shape
    out, half = np.zeros_like(x), len(kernel) // 2
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(*kernel.shape[:2]):
            y, z = i + a - half, j + b - half
            if 0 <= y < height and 0 <= z < width:
                out[i, j] += x[y, z] * kernel[a, b]
    return out
