"""Low-precision weights: bfloat16, or int8 with a scale per output.

The weight is the int8 array `NAME` times the float32 array `NAME:scale`; only kernels
of convolutions and linear layers have this form. Axes: C outputs, the last axis of
every kernel.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Dtype = Literal["float32", "bfloat16", "int8"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
SCALE = ":scale"


def narrowed(arrays: Mapping[str, np.ndarray], dtype: Dtype) -> dict[str, np.ndarray]:
    """Returns low-precision parameters; other, small collections are unchanged.

    Args:
      arrays: by path, such as params/backbone/stem/conv1/kernel.
      dtype: bfloat16 rounds every parameter. int8 rounds kernels, and needs qwix.
    """
    found = dict(arrays)
    for name, value in arrays.items():
        if not name.startswith("params/") or value.dtype != np.float32:
            continue
        if dtype == "bfloat16":
            found[name] = rounded(value)
        if dtype == "int8" and name.endswith("/kernel") and value.ndim > 1:
            found |= {name: (pair := _quantized(value))[0], f"{name}{SCALE}": pair[1]}
    return found


def rounded(array: np.ndarray) -> np.ndarray:
    """Returns the array in bfloat16, rounded to nearest."""
    import ml_dtypes

    return array.astype(ml_dtypes.bfloat16)


def _quantized(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 of the same shape, and float32 scales [1, .., 1, C]."""
    import qwix

    found = qwix.quantize(kernel, "int8", channelwise_axes=[kernel.ndim - 1])
    return np.asarray(found.qvalue), np.asarray(found.scale, np.float32)


def widened(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the weights in float32, without scales.

    Args:
      arrays: NumPy or JAX arrays, as `narrowed` returns them.
    """
    found = {}
    for name, value in arrays.items():
        if name.endswith(SCALE):
            continue
        if str(value.dtype) in ("bfloat16", "int8"):
            value = value.astype(np.float32)
        scale = arrays.get(f"{name}{SCALE}")
        found[name] = value if scale is None else value * scale
    return found


def wide_shapes(entries: Mapping[str, Any]) -> dict[str, tuple[tuple, np.dtype]]:
    """Returns the shape and dtype of each weight after `widened`.

    Args:
      entries: by name, with shape and dtype.

    Raises:
      ValueError: an int8 array lacks scales, or scales lack their array.
    """
    found = {}
    for name, entry in entries.items():
        if name.endswith(SCALE):
            if str(_dtype(entries.get(name.removesuffix(SCALE)))) != "int8":
                raise ValueError(f"{name}: expected scales of an int8 array, got none")
            continue
        dtype = str(entry.dtype)
        if dtype == "int8":
            ones = (*[1] * (len(entry.shape) - 1), *entry.shape[-1:])
            scale = entries.get(f"{name}{SCALE}")
            if scale is None or (scale.shape, str(scale.dtype)) != (ones, "float32"):
                raise ValueError(f"{name}: expected float32 {[*ones]} as {name}{SCALE}")
        wide = np.float32 if dtype in ("bfloat16", "int8") else entry.dtype
        found[name] = (tuple(entry.shape), np.dtype(wide))
    return found


def _dtype(entry: Any) -> Any:
    return None if entry is None else entry.dtype
