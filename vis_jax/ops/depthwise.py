"""Depth-wise convolution with a fast gradient.

Letters: N images, C channels, k side of the kernel.
"""

import itertools

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32, Int32

Inputs = tuple[Float[Array, "N h w C"], Float[Array, "k k 1 C"]]


@jax.custom_vjp
def depthwise(
    x: Float[Array, "N h w C"], kernel: Float[Array, "k k 1 C"]
) -> Float[Array, "N h w C"]:
    """Convolves every channel on its own; zero outside the map.

    A sum of shifted maps, as grouped convolutions are slow on CPUs. The derivative of
    the slices would be a padded map for each; the gradient here is a sum of the same
    form. There is no forward-mode derivative.

    Args:
      x: maps.
      kernel: kernel of odd side.
    """
    side, (count, height, width, channels) = kernel.shape[0], x.shape
    # Rows are joined, so that a shifted map is one slice: XLA for CPUs reads it in
    # place, but copies slices of two axes. Cells between rows are dropped at the end.
    # One more row below keeps the last slices inside.
    wide = width + side - 1
    cells = _pad(x, side, below=1).reshape(count, -1, channels)
    total = jnp.zeros((count, height * wide, channels), x.dtype)
    for row, column in itertools.product(range(side), repeat=2):
        start = row * wide + column
        part = jax.lax.slice_in_dim(cells, start, start + height * wide, axis=1)
        total += part * kernel[row, column].reshape(1, 1, -1)
    return total.reshape(count, height, wide, channels)[:, :, :width]


def _pad(
    x: Float[Array, "N h w C"], side: int, below: int = 0
) -> Float[Array, "N H W C"]:
    border = side // 2
    rows = (border, border + below)
    return jnp.pad(x, ((0, 0), rows, (border, border), (0, 0)))


def _forward(
    x: Float[Array, "N h w C"], kernel: Float[Array, "k k 1 C"]
) -> tuple[Float[Array, "N h w C"], Inputs]:
    return depthwise(x, kernel), (x, kernel)


def _backward(inputs: Inputs, cotangent: Float[Array, "N h w C"]) -> Inputs:
    x, kernel = inputs
    side = kernel.shape[0]
    padded = _pad(x, side)

    # A loop, so that XLA for CPUs reads the shifted maps in place.
    def of_place(place: Int32[Array, ""]) -> Float32[Array, "N C"]:
        start = (0, place // side, place % side, 0)
        part = jax.lax.dynamic_slice(padded, start, cotangent.shape)
        return (part * cotangent).sum((1, 2), dtype=jnp.float32)

    # The sum over images, which devices may share, is outside the loop.
    of_kernel = jax.lax.map(of_place, jnp.arange(side**2)).sum(axis=1)
    return (
        depthwise(cotangent, jnp.flip(kernel, (0, 1))),
        of_kernel.reshape(kernel.shape).astype(kernel.dtype),
    )


depthwise.defvjp(_forward, _backward)
