"""Optical flow between two frames in JAX, without weights, with static shapes.

It replaces FlowNet2 in the comparison of MaskProp (table 3), and is less accurate. The
method: a search at the coarsest level of a pyramid, then at each level the equations of
Lucas and Kanade, "An iterative image registration technique with an application to
stereo vision", IJCAI 1981, in windows of 5 x 5 pixels, and a median filter.

A flow is [H W 2], dx and dy in pixels: pixel p of the first frame is at p + flow(p) in
the second one. Letters: S candidate displacements.
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
_DAMPING = 1e-3  # on squared gradients, in units of the brightness variance
_LEAST_SIDE = 8  # pixels
# Cost of leaving the frame, in the same unit.
_UNSEEN = 0.25
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def grey_at_stride(
    image: Float32[Array, "H W 3"], *, stride: int
) -> Float32[Array, "_ _"]:
    """Returns the brightness of an image, averaged over stride x stride cells.

    Args:
      image: RGB in any unit; height and width are multiples of `stride`.
      stride: side of a cell in pixels.
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
    """Estimates the flow from one frame to another.

    Finds displacements of up to slightly more than a quarter of each side.

    Args:
      a, b: brightness, in any unit.
      levels: most levels of the pyramid, each half as large as the previous one, none
        with less than 8 pixels on a side; 1 for no pyramid. An object must be about 5
        pixels large on the coarsest level to be tracked; the search cost grows with the
        square of its pixels.
      warps: refinement iterations per level.

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
    """Warps maps of the second frame to the first: maps(p + flow(p)).

    Bilinear; 0 where the flow leaves the frame.
    """
    y, x = _positions(flow)
    return sample_pixels(maps, y.ravel(), x.ravel()).reshape(maps.shape)


def compose(
    first: Float32[Array, "H W 2"], second: Float32[Array, "H W 2"]
) -> Float32[Array, "H W 2"]:
    """Composes flows from a to b and from b to c into the flow from a to c.

    Beyond the border of b, its flow is that of the border.
    """
    height, width = first.shape[:2]
    y, x = _positions(first)
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    moved = sample_pixels(second, y.ravel(), x.ravel()).reshape(second.shape)
    return first + moved


def _positions(flow: Float32[Array, "H W 2"]) -> tuple[Array, Array]:
    """Returns the target positions y and x of a flow, [H W] each."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return flow[..., 1] + rows, flow[..., 0] + columns


def _inside(flow: Float32[Array, "H W 2"]) -> Bool[Array, "H W"]:
    """Returns where a flow stays in the frame."""
    height, width = flow.shape[:2]
    y, x = _positions(flow)
    return (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)


def _blur(x: Float32[Array, "*lead H W"]) -> Float32[Array, "*lead H W"]:
    """Returns the weighted mean over a window, with edge padding."""
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
    """Subsamples by two: pixel i of the result is pixel 2 i."""
    return _blur(x)[::2, ::2]


def _double(
    flow: Float32[Array, "h w 2"], size: tuple[int, ...]
) -> Float32[Array, "H W 2"]:
    """Upsamples a flow to the next finer level, which has twice the resolution."""
    rows, columns = (np.arange(n) // 2 for n in size)
    return 2 * flow[rows][:, columns]


def _median(flow: Float32[Array, "H W 2"]) -> Float32[Array, "H W 2"]:
    """Returns the 5 x 5 median of each component: removes outliers, keeps edges."""
    return jnp.median(_windows(flow), axis=0)


def _consistent(
    a: Float32[Array, "H W"], b: Float32[Array, "H W"]
) -> Float32[Array, "H W 2"]:
    """Keeps flow consistent in both directions, and fills the rest from nearest pixels.

    Most pixels without a match in the other frame find a false one, but it seldom leads
    back.
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
    """Returns the best integer displacement, up to a quarter of each side plus one."""
    height, width = a.shape
    down, across = (math.ceil(x / 4) + 1 for x in (height, width))
    # Shorter ones first, as ties go to the first.
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
        # Windows with hardly any pixel in both frames are ignored.
        apart = jnp.where(weight > 0.2, total / jnp.maximum(weight, 0.2), jnp.inf)
        # Prefers no motion in uniform areas.
        return apart + 0.01 * jnp.linalg.norm(displacement)

    return displacements[jax.lax.map(cost, displacements).argmin(axis=0)]


def _improve(
    flow: Float32[Array, "H W 2"],
    a: Float32[Array, "H W"],
    b: Float32[Array, "H W"],
    warps: int,
) -> Float32[Array, "H W 2"]:
    """Refines a flow by iterating the Lucas-Kanade equations.

    Each pixel warps its whole window by its own flow, so nothing leaks across object
    edges. A pixel keeps its flow if its window does not fit better at the end.
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
        # The linearisation holds for about one pixel.
        step = jnp.clip(step / (xx * yy - xy * xy)[..., None], -1, 1)
        return flow + step, None

    found, _ = jax.lax.scan(once, flow, length=warps)
    before, after = (_cost(x, windows[..., 0], b) for x in (flow, found))
    return jnp.where((after < before)[..., None], found, flow)


def _of_neighbours(
    flow: Float32[Array, "H W 2"], a: Float32[Array, "H W"], b: Float32[Array, "H W"]
) -> Float32[Array, "H W 2"]:
    """Returns the flow of the pixel or a neighbour, whichever fits its window best."""
    windows = _windows(a[..., None])[..., 0]
    near = _windows(flow)
    near = jnp.concatenate([near[12:13], near])  # ties go to its own

    def cost(flow: Float32[Array, "H W 2"]) -> Float32[Array, "H W"]:
        return _cost(flow, windows, b)

    best = jax.lax.map(cost, near).argmin(axis=0)
    return jnp.take_along_axis(near, best[None, :, :, None], axis=0)[0]


def _cost(
    flow: Float32[Array, "H W 2"],
    windows: Float32[Array, "25 H W"],
    b: Float32[Array, "H W"],
) -> Float32[Array, "H W"]:
    """Returns the mean squared difference; fixed where the flow leaves the frame."""
    apart, weights = _differences(flow, windows, b)
    total = (jnp.square(apart) * weights).sum(axis=0)
    mean = total / jnp.maximum(weights.sum(axis=0), 1e-6)
    return jnp.where(_inside(flow), mean, _UNSEEN)


def _windows(x: Float32[Array, "H W C"]) -> Float32[Array, "25 H W C"]:
    """Returns the window around each pixel, with edge padding."""
    # A single gather: 25 slices would double the compile time of the whole op.
    steps = np.indices((5, 5)).reshape(2, -1, 1, 1) - 2
    height, width = x.shape[:2]
    rows = (np.arange(height)[None, :, None] + steps[0]).clip(0, height - 1)
    columns = (np.arange(width)[None, None] + steps[1]).clip(0, width - 1)
    return x[rows, columns]


class _Differences(NamedTuple):
    """Differences between the windows of two frames."""

    apart: Float32[Array, "25 H W"]
    weights: Float32[Array, "25 H W"]  # 0 where a frame lacks the pixel


def _differences(
    flow: Float32[Array, "H W 2"],
    windows: Float32[Array, "25 H W"],
    b: Float32[Array, "H W"],
) -> _Differences:
    """Returns the brightness of a's windows minus that of b at the flow's target."""
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
