"""Depth-wise convolution with a fast gradient.

Letters: N images, C channels, k side of the kernel.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float

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
      kernel: of odd side.
    """
    total = jnp.zeros_like(x)
    for (row, column), part in _shifted(x, kernel.shape[0]):
        total += part * kernel[row, column].reshape(1, 1, 1, -1)
    return total


def _shifted(
    x: Float[Array, "N h w C"], side: int
) -> Iterator[tuple[tuple[int, int], Float[Array, "N h w C"]]]:
    """Yields each place of a kernel, and the maps shifted as it reads them."""
    height, width = x.shape[1:3]
    border = (side // 2, side // 2)
    padded = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    for row, column in itertools.product(range(side), repeat=2):
        part = jax.lax.slice_in_dim(padded, row, row + height, axis=1)
        part = jax.lax.slice_in_dim(part, column, column + width, axis=2)
        yield (row, column), part


def _forward(
    x: Float[Array, "N h w C"], kernel: Float[Array, "k k 1 C"]
) -> tuple[Float[Array, "N h w C"], Inputs]:
    return depthwise(x, kernel), (x, kernel)


def _backward(inputs: Inputs, cotangent: Float[Array, "N h w C"]) -> Inputs:
    x, kernel = inputs
    of_kernel = [
        jnp.einsum("nhwc,nhwc->c", part, cotangent, preferred_element_type=jnp.float32)
        for _, part in _shifted(x, kernel.shape[0])
    ]
    return (
        depthwise(cotangent, jnp.flip(kernel, (0, 1))),
        jnp.stack(of_kernel).reshape(kernel.shape).astype(kernel.dtype),
    )


depthwise.defvjp(_forward, _backward)
