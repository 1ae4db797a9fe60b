"""Masks of tracks in the literal RGNNVIS: two dense convolutions for each track.

Part of the slow reference described in `literal_graph`. A convolution NAME is the pair
of weights "NAME/w" (3, 3, in, out) and "NAME/b" (out).
"""

import numpy as np

from tests.association.literal_layers import Weights, linear, relu
from tests.association.literal_memory import ACTIVE

ABSENT = -20.0  # logit of a track without a detection


def box_mask(
    box: np.ndarray, canvas: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Returns a box as 0 or 1 on a grid of `size` that spans the canvas edge to edge.

    Args:
      box: x1 y1 x2 y2 in pixels, edges included.
      canvas: height and width in pixels.
    """
    inside = np.zeros(size)
    for i, j in np.ndindex(*size):
        y = i * canvas[0] / (size[0] - 1)
        x = j * canvas[1] / (size[1] - 1)
        inside[i, j] = box[0] <= x <= box[2] and box[1] <= y <= box[3]
    return inside


def convolve(weights: Weights, name: str, maps: np.ndarray) -> np.ndarray:
    """Applies a 3x3 convolution to (h, w, in), with zero padding."""
    h, w, _ = maps.shape
    padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
    kernel = weights[f"{name}/w"]
    out = np.zeros((h, w, kernel.shape[-1]))
    for i, j in np.ndindex(h, w):
        window = padded[i : i + 3, j : j + 3]
        out[i, j] = np.einsum("yxc,yxcd->d", window, kernel) + weights[f"{name}/b"]
    return out


def track_masks(
    weights: Weights,
    embedding: np.ndarray,
    status: np.ndarray,
    chosen: np.ndarray,
    masks: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Returns logits (M, h, w) of each track, ABSENT if it is not active.

    Args:
      embedding: (M, D) after the recurrence.
      status, chosen: (M) of the frame.
      masks: mask logits and box masks of the detections, each (N, h, w).
    """
    raw, inside = masks
    out = np.full((len(status), *raw.shape[1:]), ABSENT)
    for m in range(len(status)):
        if status[m] != ACTIVE:
            continue
        own = relu(linear(weights, "masks.embedding", embedding[m]))
        everywhere = np.broadcast_to(own, (*raw.shape[1:], len(own)))
        two = np.stack([raw[chosen[m]], inside[chosen[m]]], axis=-1)
        maps = np.concatenate([two, everywhere], axis=-1)
        maps = relu(convolve(weights, "masks.conv1", maps))
        out[m] = convolve(weights, "masks.conv2", maps)[..., 0]
    return out


def plain_masks(
    status: np.ndarray, chosen: np.ndarray, masks: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Replaces `track_masks` in heuristic association by the pooling logits."""
    raw, inside = masks
    out = np.full((len(status), *raw.shape[1:]), ABSENT)
    for m in range(len(status)):
        if status[m] == ACTIVE:
            out[m] = raw[chosen[m]] + 10 * inside[chosen[m]]
    return out


def slot_map(logits: np.ndarray, background: float) -> np.ndarray:
    """Returns (h, w): 0 for background, m + 1 for slot m. Ties go to the lowest.

    Args:
      logits: (M, h, w).
      background: its constant logit.
    """
    slots = np.zeros(logits.shape[1:], int)
    for i, j in np.ndindex(*slots.shape):
        best = background
        for m in range(len(logits)):
            if logits[m, i, j] > best:
                best, slots[i, j] = logits[m, i, j], m + 1
    return slots
