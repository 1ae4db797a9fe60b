"""Deformable convolution: every kernel tap samples at a predicted offset.

Letters: h w output size, kh kw kernel size, G groups of channels that share offsets, D
output channels, P positions.
"""

import math

import jax
import jax.numpy as jnp

from vis_jax.ops.bilinear import sample_pixels
from vis_jax.typing import Array, Float, Float32


def deform_conv(
    x: Float[Array, "H W C"],
    kernel: Float[Array, "kh kw c D"],
    offsets: Float32[Array, "h w G kh kw 2"],
    *,
    modulation: Float[Array, "h w G kh kw"] | None,
    stride: int,
    padding: int,
    dilation: int,
) -> Float[Array, "h w D"]:
    """Convolves bilinear samples at offset taps; zero outside the map.

    Dai et al., "Deformable convolutional networks", ICCV 2017, equation 2; with
    `modulation` Zhu et al., "Deformable ConvNets v2", CVPR 2019, equation 1.

    Args:
      x: one map.
      kernel: c = C / number of groups of the convolution, which split the channels of
        input and output.
      offsets: y, x of every tap in pixels; G equal parts of the channels.
      modulation: weight of every sample; None = 1.
      stride, padding, dilation: values for both axes, in pixels.

    Raises:
      ValueError: the output size does not match the offsets, or channels do not divide
        into groups.
    """
    taps = kernel.shape[:2]
    _check(x.shape, kernel.shape, offsets.shape, (stride, padding, dilation))
    axes = [
        (stride * jnp.arange(out, dtype=jnp.float32) - padding)[:, None]
        + dilation * jnp.arange(tap, dtype=jnp.float32)[None]
        for out, tap in zip(offsets.shape[:2], taps, strict=True)
    ]
    y = axes[0][:, None, None, :, None] + offsets[..., 0]
    across = axes[1][None, :, None, None, :] + offsets[..., 1]
    groups = offsets.shape[2]
    parts = jnp.moveaxis(x.reshape(*x.shape[:2], groups, -1), 2, 0)
    # [G, P, C / G], P = outputs times taps.
    y, across = (jnp.moveaxis(at, 2, 0).reshape(groups, -1) for at in (y, across))
    values = jax.vmap(sample_pixels)(parts, y, across)
    if modulation is not None:
        weights = jnp.moveaxis(modulation, 2, 0).reshape(groups, -1, 1)
        values = values * weights.astype(values.dtype)
    values = jnp.moveaxis(values, 0, 1).reshape(-1, math.prod(taps), x.shape[2])
    return _convolve(values, kernel).reshape(*offsets.shape[:2], -1)


def _convolve(
    values: Float[Array, "P K C"], kernel: Float[Array, "kh kw c D"]
) -> Float[Array, "P D"]:
    """Sums over taps and the channels of each group.

    Groups come first: as a middle axis they make the kernel's gradient seven times
    slower on CPUs.
    """
    *taps, width, features = kernel.shape
    count, groups = len(values), values.shape[2] // width
    values = jnp.moveaxis(values.reshape(count, -1, groups, width), 2, 0)
    values = values.reshape(groups, count, -1)
    kernel = kernel.reshape(math.prod(taps) * width, groups, features // groups)
    return jnp.einsum("gpk,kgd->pgd", values, kernel).reshape(count, -1)


def _check(
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    offsets: tuple[int, ...],
    steps: tuple[int, int, int],
) -> None:
    """Raises ValueError unless the shapes match."""
    stride, padding, dilation = steps
    size = tuple(
        (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for length, taps in zip(x[:2], kernel[:2], strict=True)
    )
    if size != offsets[:2]:
        raise ValueError(
            f"offsets: expected the size of the output, {size}, got {offsets[:2]}"
        )
    channels, width, features = x[2], *kernel[2:]
    if channels % width or features % (channels // width) or channels % offsets[2]:
        raise ValueError(
            f"kernel: expected groups that divide {channels} and {features} channels,"
            f" got groups of {width} and {offsets[2]} groups of offsets"
        )
