"""Dynamic mask convolution: filters predicted for each instance.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020. Letters: N
instances, P filter parameters, h w cells of the mask features.
"""

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32, Int32

WIDTH = 8  # channels of both hidden layers
_REACH = 8  # relative coordinates are 1 at this many strides


def num_params(channels: int) -> int:
    """Returns the number of filter parameters per instance; 169 for 8 channels."""
    return (channels + 2) * WIDTH + WIDTH * WIDTH + WIDTH + 2 * WIDTH + 1


def dynamic_masks(
    params: Float32[Array, "N P"],
    features: Float[Array, "h w C"],
    locations: Float32[Array, "N 2"],
    strides: Int32[Array, "N"],
    *,
    stride: int,
) -> Float32[Array, "N h w"]:
    """Returns mask logits: three 1 x 1 convolutions with filters of each instance.

    The input is the mask features and each cell's offset from the instance, x and y
    divided by 8 strides of the instance's level.

    Args:
      params: weights of the three layers, each [outputs, inputs] row by row, then their
        biases; see `num_params`.
      features: features of the mask branch.
      locations: x, y in pixels where the instances were detected.
      strides: strides of the levels on which they were detected, in pixels.
      stride: stride of the mask features, in pixels; cell j has its centre at stride j
        + stride // 2.

    Raises:
      ValueError: `params` do not match the number of feature channels.
    """
    height, width, channels = features.shape
    if params.shape[1] != num_params(channels):
        raise ValueError(
            f"params: expected {num_params(channels)} numbers for {channels} channels,"
            f" got {params.shape[1]}"
        )
    weights, biases = _layers(params, channels)
    reach = (_REACH * strides).astype(jnp.float32)[:, None]
    x, y = (
        (locations[:, axis, None] - _centres(cells, stride)[None]) / reach
        for axis, cells in ((0, width), (1, height))
    )
    by_x, by_y, by_feature = jnp.split(weights[0], (1, 2), axis=-1)
    hidden = jnp.einsum("hwc,nkc->nhwk", features.astype(jnp.float32), by_feature)
    hidden += (x[..., None] * by_x.swapaxes(1, 2))[:, None]
    hidden += (y[..., None] * by_y.swapaxes(1, 2))[:, :, None]
    hidden = jax.nn.relu(hidden + biases[0][:, None, None])
    hidden = jnp.einsum("nhwk,njk->nhwj", hidden, weights[1])
    hidden = jax.nn.relu(hidden + biases[1][:, None, None])
    return jnp.einsum("nhwk,nk->nhw", hidden, weights[2][:, 0]) + biases[2][:, None]


def _centres(cells: int, stride: int) -> Float32[Array, "cells"]:
    return jnp.arange(cells, dtype=jnp.float32) * stride + stride // 2


def _layers(
    params: Float32[Array, "N P"], channels: int
) -> tuple[list[Float32[Array, "N _ _"]], list[Float32[Array, "N _"]]]:
    """Returns weights [N, outputs, inputs] and biases [N, outputs] of the layers."""
    inputs, outputs = (channels + 2, WIDTH, WIDTH), (WIDTH, WIDTH, 1)
    sizes = [a * b for a, b in zip(inputs, outputs, strict=True)] + list(outputs)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = jnp.split(params, ends, axis=1)
    weights = [
        part.reshape(-1, b, a)
        for part, a, b in zip(parts[:3], inputs, outputs, strict=True)
    ]
    return weights, parts[3:]
