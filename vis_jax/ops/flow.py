"""Optical flow between two frames, in JAX: no weights, static shapes.

It stands where the comparison of MaskProp (table 3) has FlowNet2, and is not as good.
A search at the coarsest level of a pyramid, then at each level the equations of Lucas
and Kanade, "An iterative image registration technique with an application to stereo
vision", IJCAI 1981, in windows of 5 x 5 pixels, and a median filter.

A flow is [H W 2], dx and dy in pixels: pixel p of the first frame is at p + flow(p) in
the second one. Letters: S displacements that are tried.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.ops.bilinear import sample_pixels
from vis_jax.typing import Array, Bool, Float32

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_DAMPING = 1e-3  # of squared gradients; the unit is the variance of the brightness
_LEAST_SIDE = 8  # pixels
# Leaving the frame is better than what differs more; the unit is the same.
_UNSEEN = 0.25
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def grey_at_stride(
    image: Float32[Array, "H W 3"], *, stride: int
) -> Float32[Array, "_ _"]:
    """Brightness of an image, the mean over cells of stride x stride pixels.

    Args:
      image: RGB in any unit; height and width are multiples of `stride`.
      stride: pixels of a cell along each axis.
    """
    height, width = image.shape[0] // stride, image.shape[1] // stride
    grey = image @ jnp.array(_LUMA, jnp.float32)
    return grey.reshape(height, stride, width, stride).mean(axis=(1, 3))


def flow_between(
    a: Float32[Array, "H W"],
    b: Float32[Array, "H W"],
    *,
    levels: int,
    warps: int,
) -> Float32[Array, "H W 2"]:
    """Where the pixels of one frame are in another.

    Displacements of up to a quarter of each side, and a little more, are found.

    Args:
      a, b: brightness, in any unit.
      levels: of the pyramid at most, each half as large as the one before, none with
        less than 8 pixels on a side; 1 is no pyramid. An object has to be some 5 pixels
        large on the coarsest to be told from what is around it, and the work of the
        search grows with the square of its pixels.
      warps: how often the flow is improved at each level.

    Returns:
      dx, dy; 0 between equal frames.
    """
    a, b = (jnp.stack([a, b]) - a.mean()) / (a.std() + 1e-6)
    pyramid = [(a, b)]
    while len(pyramid) < levels and min(a.shape) >= 2 * _LEAST_SIDE:
        a, b = _halve(a), _halve(b)
        pyramid.append((a, b))
    flow = _consistent(*pyramid[-1])
    for a, b in reversed(pyramid):
        if a.shape != flow.shape[:2]:
            flow = _double(flow, a.shape)
        flow = _median(_improve(_of_neighbours(flow, a, b), a, b, warps))
    return flow


def warp(
    maps: Float32[Array, "H W C"], flow: Float32[Array, "H W 2"]
) -> Float32[Array, "H W C"]:
    """Maps of the second frame as the first one sees them: maps(p + flow(p)).

    Bilinear, and 0 where the flow leaves the frame.
    """
    y, x = _positions(flow)
    return sample_pixels(maps, y.ravel(), x.ravel()).reshape(maps.shape)


def compose(
    first: Float32[Array, "H W 2"], second: Float32[Array, "H W 2"]
) -> Float32[Array, "H W 2"]:
    """The flow from a to c by way of b, of those from a to b and from b to c.

    Beyond the border of b its flow is that of the border.
    """
    height, width = first.shape[:2]
    y, x = _positions(first)
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    moved = sample_pixels(second, y.ravel(), x.ravel()).reshape(second.shape)
    return first + moved


def _positions(flow: Float32[Array, "H W 2"]) -> tuple[Array, Array]:
    """y and x to which a flow leads, [H W] each."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return flow[..., 1] + rows, flow[..., 0] + columns


def _inside(flow: Float32[Array, "H W 2"]) -> Bool[Array, "H W"]:
    """Where a flow stays in the frame."""
    height, width = flow.shape[:2]
    y, x = _positions(flow)
    return (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)


def _blur(x: Float32[Array, "*lead H W"]) -> Float32[Array, "*lead H W"]:
    """Weighted mean over a window; pixels beyond the border are those of the border."""
    half = len(_BINOMIAL) // 2
    for axis in (-2, -1):
        length = x.shape[axis]
        index = np.clip(np.arange(-half, length + half), 0, length - 1)
        padded = jnp.take(x, index, axis=axis)
        parts = [
            tap * jax.lax.slice_in_dim(padded, i, i + length, axis=axis % x.ndim)
            for i, tap in enumerate(_BINOMIAL)
        ]
        x = functools.reduce(jnp.add, parts)
    return x


def _halve(x: Float32[Array, "H W"]) -> Float32[Array, "h w"]:
    """Every second pixel: pixel i of the result is pixel 2 i."""
    return _blur(x)[::2, ::2]


def _double(
    flow: Float32[Array, "h w 2"], size: tuple[int, ...]
) -> Float32[Array, "H W 2"]:
    """The flow of the level below, which has twice as many pixels."""
    rows, columns = (np.arange(n) // 2 for n in size)
    return 2 * flow[rows][:, columns]


def _median(flow: Float32[Array, "H W 2"]) -> Float32[Array, "H W 2"]:
    """Of each component over 5 x 5 pixels: single outliers go, edges stay."""
    return jnp.median(_windows(flow), axis=0)


def _consistent(
    a: Float32[Array, "H W"], b: Float32[Array, "H W"]
) -> Float32[Array, "H W 2"]:
    """What the searches from either frame agree on, and what lies nearest to it.

    Most pixels of which the other frame has none find something there, but seldom does
    that lead back.
    """
    there, back = _search(a, b), _search(b, a)
    apart = jnp.linalg.norm(compose(there, back), axis=-1)
    trusted = ((apart <= 1.5) & _inside(there)).astype(jnp.float32)
    known = jnp.moveaxis(there, -1, 0) * trusted[None]
    known = jnp.concatenate([known, trusted[None]])

    def spread(known: Float32[Array, "3 H W"], _: None) -> tuple:
        blurred = _blur(known)
        filled = blurred / jnp.maximum(blurred[2:], 1e-6)
        return jnp.where(trusted[None] > 0, known, filled), None

    known, _ = jax.lax.scan(spread, known, length=max(a.shape) // 2)
    return jnp.moveaxis(known[:2], 0, -1)


def _search(
    a: Float32[Array, "H W"], b: Float32[Array, "H W"]
) -> Float32[Array, "H W 2"]:
    """The best of all whole displacements up to a quarter of each side and one."""
    height, width = a.shape
    down, across = (math.ceil(x / 4) + 1 for x in (height, width))
    # Shorter ones first: of equal costs the first is taken.
    tried = sorted(
        itertools.product(range(-across, across + 1), range(-down, down + 1)),
        key=lambda d: (d[0] ** 2 + d[1] ** 2, d),
    )
    displacements = jnp.array(tried, jnp.float32)

    def cost(displacement: Float32[Array, "2"]) -> Float32[Array, "H W"]:
        flow = jnp.broadcast_to(displacement.reshape(1, 1, 2), (height, width, 2))
        inside = _inside(flow).astype(jnp.float32)
        apart = jnp.square(a - warp(b[..., None], flow)[..., 0]) * inside
        total, weight = _blur(jnp.stack([apart, inside]))
        # A window of which hardly a pixel is in both frames says nothing.
        apart = jnp.where(weight > 0.2, total / jnp.maximum(weight, 0.2), jnp.inf)
        # Where nothing is to be seen, nothing moves.
        return apart + 0.01 * jnp.linalg.norm(displacement)

    return displacements[jax.lax.map(cost, displacements).argmin(axis=0)]


def _improve(
    flow: Float32[Array, "H W 2"],
    a: Float32[Array, "H W"],
    b: Float32[Array, "H W"],
    warps: int,
) -> Float32[Array, "H W 2"]:
    """The equations of Lucas and Kanade, solved again from where they led.

    Each pixel moves its whole window by its own flow, so that nothing crosses the edge
    of an object. A pixel whose window does not fit better in the end stays.
    """
    dy, dx = jnp.gradient(a)
    windows = _windows(jnp.stack([a, dx, dy], axis=-1))

    def once(flow: Float32[Array, "H W 2"], _: None) -> tuple:
        apart, weights = _differences(flow, windows[..., 0], b)
        dx, dy = windows[..., 1], windows[..., 2]
        xx, xy, yy, xe, ye = (
            (product * weights).sum(axis=0)
            for product in (dx * dx, dx * dy, dy * dy, dx * apart, dy * apart)
        )
        xx, yy = xx + _DAMPING, yy + _DAMPING
        step = jnp.stack([yy * xe - xy * ye, xx * ye - xy * xe], axis=-1)
        # Linear in the displacement only for about a pixel.
        step = jnp.clip(step / (xx * yy - xy * xy)[..., None], -1, 1)
        return flow + step, None

    found, _ = jax.lax.scan(once, flow, length=warps)
    before, after = (_cost(x, windows[..., 0], b) for x in (flow, found))
    return jnp.where((after < before)[..., None], found, flow)


def _of_neighbours(
    flow: Float32[Array, "H W 2"], a: Float32[Array, "H W"], b: Float32[Array, "H W"]
) -> Float32[Array, "H W 2"]:
    """The flow of the pixel or of one around it, whichever fits its window best."""
    windows = _windows(a[..., None])[..., 0]
    near = _windows(flow)
    near = jnp.concatenate([near[12:13], near])  # of equal costs its own

    def cost(flow: Float32[Array, "H W 2"]) -> Float32[Array, "H W"]:
        return _cost(flow, windows, b)

    best = jax.lax.map(cost, near).argmin(axis=0)
    return jnp.take_along_axis(near, best[None, :, :, None], axis=0)[0]


def _cost(
    flow: Float32[Array, "H W 2"],
    windows: Float32[Array, "25 H W"],
    b: Float32[Array, "H W"],
) -> Float32[Array, "H W"]:
    """Mean square of the differences; a fixed one where the flow leaves the frame."""
    apart, weights = _differences(flow, windows, b)
    total = (jnp.square(apart) * weights).sum(axis=0)
    mean = total / jnp.maximum(weights.sum(axis=0), 1e-6)
    return jnp.where(_inside(flow), mean, _UNSEEN)


def _windows(x: Float32[Array, "H W C"]) -> Float32[Array, "25 H W C"]:
    """The pixels around each pixel; those beyond the border are those of the border."""
    # One gather: 25 slices double the time the whole takes to compile.
    steps = np.indices((5, 5)).reshape(2, -1, 1, 1) - 2
    height, width = x.shape[:2]
    rows = (np.arange(height)[None, :, None] + steps[0]).clip(0, height - 1)
    columns = (np.arange(width)[None, None] + steps[1]).clip(0, width - 1)
    return x[rows, columns]


class _Differences(NamedTuple):
    """Of the windows of two frames."""

    apart: Float32[Array, "25 H W"]
    weights: Float32[Array, "25 H W"]  # 0 where a frame has no such pixel


def _differences(
    flow: Float32[Array, "H W 2"],
    windows: Float32[Array, "25 H W"],
    b: Float32[Array, "H W"],
) -> _Differences:
    """Brightness of the windows of a, less that of b where the flow leads."""
    height, width = b.shape
    rows, columns = np.indices(b.shape, np.float32)
    steps = (np.indices((5, 5)).reshape(2, -1, 1, 1) - 2).astype(np.float32)
    own_y, own_x = rows[None] + steps[0], columns[None] + steps[1]
    y, x = flow[None, ..., 1] + own_y, flow[None, ..., 0] + own_x
    read = sample_pixels(b[..., None], y.ravel(), x.ravel()).reshape(y.shape)
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    inside &= (own_y >= 0) & (own_y < height) & (own_x >= 0) & (own_x < width)
    bell = np.outer(_BINOMIAL, _BINOMIAL).reshape(-1, 1, 1).astype(np.float32)
    return _Differences(windows - read, jnp.where(inside, bell, 0.0))
