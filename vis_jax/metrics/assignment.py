"""Optimal assignment of tracks to predictions."""

import numpy as np


def assign(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs rows with columns so that the sum of the values is the largest.

    Args:
      value: [G, D].

    Returns:
      int64[min(G, D)] twice: rows, ascending, and their columns.
    """
    # Imported here, as it takes as long as scoring some 20 videos.
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(value, maximize=True)
