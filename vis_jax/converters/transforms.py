"""Transforms between PyTorch and Flax layouts; misfits come out with a wrong shape."""

import math

import numpy as np

from vis_jax.converters.rules import Shape, Transform


def _same(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return _fold(tensor, shape)


def _same_back(array: np.ndarray, outputs: int) -> np.ndarray:
    return array.reshape(-1) if outputs > 1 else array


# Vectors and tables; vectors may be split, e.g. biases into heads.
same = Transform(_same, _same_back)


def _kernel(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    axes = (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
    if tensor.ndim not in (2, 4):
        return tensor
    return _fold(tensor.transpose(axes), shape)


def _kernel_back(array: np.ndarray, outputs: int) -> np.ndarray:
    if array.ndim == 4 and outputs == 1:
        return array.transpose(3, 2, 0, 1)
    inputs = math.prod(array.shape[: array.ndim - outputs])
    return array.reshape(inputs, -1).T


# [out, in] to [in, out] and [out, in, h, w] to [h, w, in, out], with split axes.
kernel = Transform(_kernel, _kernel_back)


def rows(part: int, parts: int, transform: Transform) -> Transform:
    """Returns the transform of one of several equal parts of the rows, e.g. q, k, v."""

    def take(tensor: np.ndarray, shape: Shape, /) -> np.ndarray:
        if tensor.shape[0] % parts:
            return tensor
        return transform(np.split(tensor, parts)[part], shape)

    return transform._replace(forward=take, part=part, parts=parts)


def unchanged(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reverse transform for equal layouts."""
    del outputs
    return array


def _first_rows(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor[: shape[0]]


# Takes as many rows as the target has: 100 queries from a table of 200.
first_rows = Transform(_first_rows, unchanged)


def _position_table(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    sides = [round(length**0.5) for length in (tensor.shape[0], shape[0])]
    same_heads = tensor.shape[1:] == shape[1:]
    square = [sides[0] ** 2, sides[1] ** 2] == [tensor.shape[0], shape[0]]
    if sides[0] == sides[1] or not same_heads or not square:
        return tensor
    weights = _cubic_weights(*sides)
    table = tensor.astype(np.float64).reshape(sides[0], sides[0], -1)
    table = np.einsum("yi,xj,ijh->yxh", weights, weights, table)
    return table.reshape(shape).astype(tensor.dtype)


# Swin's relative position table [(2w - 1)^2, heads], resized to other windows: bicubic
# with a = -0.75 and half-pixel centres, as in Swin's own loading code.
position_table = Transform(_position_table, unchanged)


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """Returns the [new, old] matrix of a cubic resize of one axis, clamped edges."""
    weights = np.zeros((new, old))
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    for row, centre in enumerate(centres):
        first = int(np.floor(centre))
        for index in range(first - 1, first + 3):
            column = min(max(index, 0), old - 1)
            weights[row, column] += _cubic(abs(centre - index))
    return weights


def _cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0


def _fold(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """Splits axes if the sizes agree and splitting alone gives the shape."""
    rest = list(shape)
    for length in tensor.shape:
        product = 1
        while rest and product < length:
            product *= rest.pop(0)
        if length == 1 and rest and rest[0] == 1:
            rest.pop(0)
        if product != length:
            return tensor
    return tensor if rest else tensor.reshape(shape)
