"""Convolution with a fast gradient on every platform, including in loops and groups.

For CPUs, XLA rewrites the convolutions of a gradient into a form that its library
supports, but only outside loops (`lax.scan`, `lax.map`) and without groups. All others
run as plain loops, ten to eighty times slower, so on CPUs the gradient here is written
in the supported form. Letters: k side of the kernel, c input channels per group, D
output channels, G groups.
"""

import functools

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float

Inputs = tuple[Float[Array, "N H W C"], Float[Array, "k k c D"]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "k k c D"],
    stride: int = 1,
    dilation: int = 1,
) -> Float[Array, "N h w D"]:
    """Convolves in C / c groups, padded by half the kernel on all four sides.

    Values equal those of XLA's convolution on every platform. There is no forward-mode
    derivative. With stride 1, h = H.

    Args:
      x: maps of images.
      kernel: kernel of odd side.
      stride: stride of both axes, in pixels.
      dilation: spacing of the taps, in pixels; 1 with groups.

    Raises:
      ValueError: the kernel has an even side, or groups are combined with dilation.
    """
    if not all(side % 2 for side in kernel.shape[:2]):
        raise ValueError(f"kernel: expected an odd side, got {kernel.shape[:2]}")
    if dilation > 1 and x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"dilation: expected 1 with groups, got {dilation}")
    pad = dilation * (kernel.shape[0] // 2)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def by_columns(
    x: Float[Array, "N H W C"], kernel: Float[Array, "k k c D"], stride: int
) -> Float[Array, "N h w D"]:
    """Convolves by one matrix product per group over shifted maps (im2col)."""
    side, _, width, features = kernel.shape
    groups, pad = x.shape[-1] // width, side // 2
    height, across = ((length - 1) // stride + 1 for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    x = jnp.moveaxis(x.reshape(*x.shape[:3], groups, width), 3, 0)
    shifted = [
        x[:, :, row : row + stride * height : stride, column:][
            :, :, :, : stride * across : stride
        ]
        for row in range(side)
        for column in range(side)
    ]
    columns = jnp.stack(shifted, axis=-2)  # [G, N, h, w, k k, c]
    columns = columns.reshape(*columns.shape[:4], -1)
    kernel = kernel.reshape(side * side * width, groups, features // groups)
    out = jnp.einsum("gnhwk,kgd->nhwgd", columns, kernel)
    return out.reshape(len(out), height, across, features)


def _forward(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "k k c D"],
    stride: int,
    dilation: int,
) -> tuple[Float[Array, "N h w D"], Inputs]:
    return convolve(x, kernel, stride, dilation), (x, kernel)


def _backward(
    stride: int, dilation: int, inputs: Inputs, cotangent: Float[Array, "N h w D"]
) -> Inputs:
    def by_xla(x: Array, kernel: Array, cotangent: Array) -> Inputs:
        plain = convolve.fun  # without the custom gradient
        return jax.vjp(lambda *at: plain(*at, stride, dilation), x, kernel)[1](
            cotangent
        )

    def in_groups(x: Array, kernel: Array, cotangent: Array) -> Inputs:
        def columns(x: Array, kernel: Array) -> Array:
            return by_columns(x, kernel, stride)

        return jax.vjp(columns, x, kernel)[1](cotangent)

    def dense(x: Array, kernel: Array, cotangent: Array) -> Inputs:
        return _dense_gradients(x, kernel, cotangent, stride, dilation)

    x, kernel = inputs
    on_cpu = dense if kernel.shape[2] == x.shape[-1] else in_groups
    return jax.lax.platform_dependent(*inputs, cotangent, cpu=on_cpu, default=by_xla)


convolve.defvjp(_forward, _backward)


def _dense_gradients(
    x: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N h w D"],
    stride: int,
    dilation: int,
) -> Inputs:
    """Returns the gradients of an ungrouped convolution, as convolutions."""
    side = kernel.shape[0]
    pad, reach = dilation * (side // 2), dilation * (side - 1)
    # Pixels at the end of an axis that no stride reaches.
    unread = [(length - 1) % stride for length in x.shape[1:3]]
    spread = jax.lax.conv_general_dilated(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        window_strides=(1, 1),
        padding=[(reach - pad, reach - pad + end) for end in unread],
        lhs_dilation=(stride, stride),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
    )

    # `jax.vmap` would merge several convolutions of one kernel into one with groups.
    @jax.custom_batching.sequential_vmap
    def of_kernel(x: Array, cotangent: Array) -> Array:
        found = jax.lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            cotangent.transpose(1, 2, 0, 3),
            window_strides=(dilation, dilation),
            padding=[(pad, pad - end) for end in unread],
            rhs_dilation=(stride, stride),
            dimension_numbers=_LAYOUT,
        )
        return found.transpose(1, 2, 0, 3)

    return spread, of_kernel(x, cotangent)
