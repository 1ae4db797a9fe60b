"""Window partition of a map for Swin transformers.

Liu et al., "Swin transformer", ICCV 2021, section 3.2. Letters: W windows, w window
side in pixels, K = w * w pixels per window.
"""

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float


def partition(x: Float[Array, "H W C"], window: int) -> Float[Array, "_ _ C"]:
    """Cuts a map into non-overlapping windows, row by row: [W, K, C].

    Height and width must be multiples of the window's side.
    """
    height, width, channels = x.shape
    x = x.reshape(height // window, window, width // window, window, channels)
    return x.transpose(0, 2, 1, 3, 4).reshape(-1, window * window, channels)


def merge(
    windows: Float[Array, "_ _ C"], *, height: int, width: int, window: int
) -> Float[Array, "{height} {width} C"]:
    """Reassembles the map from its windows; the inverse of `partition`."""
    channels = windows.shape[-1]
    x = windows.reshape(height // window, width // window, window, window, channels)
    return x.transpose(0, 2, 1, 3, 4).reshape(height, width, channels)


def shift_attend(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Returns which tokens of a window were neighbours before a roll by -shift.

    Args:
      height, width: height and width of the padded map, in tokens.

    Returns:
      bool[W, K, K], True where the query (first) may attend to the key.
    """

    def regions(length: int) -> np.ndarray:
        index = np.arange(length)
        return (index >= length - window).astype(int) + (index >= length - shift)

    label = 3 * regions(height)[:, None] + regions(width)[None]
    label = label.reshape(height // window, window, width // window, window)
    label = label.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return label[:, :, None] == label[:, None, :]


def relative_index(window: int) -> np.ndarray:
    """Returns the relative position table's row for each query and key of a window.

    Returns:
      int[K, K]: (dy + w - 1) * (2 w - 1) + dx + w - 1, with dy, dx = query - key.
    """
    y, x = (axis.reshape(-1) for axis in np.mgrid[:window, :window])
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def padded(length: int, window: int) -> int:
    """Returns the smallest multiple of the window that holds `length` tokens."""
    return -(-length // window) * window


def pad_map(x: Float[Array, "N H W C"], window: int) -> Float[Array, "N Hp Wp C"]:
    """Pads with zeros at the bottom and right, to multiples of the window."""
    height, width = x.shape[1:3]
    bottom = padded(height, window) - height
    right = padded(width, window) - width
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
