"""Attention of one position to the window around it: loops, in float64."""

import math

import numpy as np


def look(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    relative: np.ndarray,
    value_bias: np.ndarray,
    *,
    place: tuple[int, int],
) -> np.ndarray:
    """Returns the attention output (heads, d) of the query at `place`.

    Yang et al., "Associating Objects with Transformers for Video Object Segmentation":
    the logit of a key is <q, k> / sqrt(d) plus a term for its position in the window,
    dy first; a bias for the same position is added to its value.

    Args:
      queries, keys, values: (h, w, heads, d).
      relative: (h, w, heads, side * side).
      value_bias: (heads, d, side * side).
    """
    height, width, heads, d = queries.shape
    side = math.isqrt(relative.shape[-1])
    y, x = place
    found = np.zeros((heads, d))
    for head in range(heads):
        logits, picked = [], []
        for dy in range(-(side // 2), side // 2 + 1):
            for dx in range(-(side // 2), side // 2 + 1):
                v, u = y + dy, x + dx
                if not (0 <= v < height and 0 <= u < width):
                    continue
                number = (dy + side // 2) * side + dx + side // 2
                product = queries[y, x, head] @ keys[v, u, head]
                logits.append(product / math.sqrt(d) + relative[y, x, head, number])
                picked.append(values[v, u, head] + value_bias[head, :, number])
        weights = np.exp(np.array(logits) - max(logits))
        found[head] = weights @ np.array(picked) / weights.sum()
    return found
