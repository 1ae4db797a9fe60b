"""MaskProp: propagates masks from a centre frame to the other frames of its clip.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020, section 4.2. No code was published; what the
paper leaves open (the residual block, initialisation, how dilations are combined)
follows PoseWarper, Bertasius et al., NeurIPS 2019, on which the paper builds.

All methods take one centre frame and one other frame. Letters: h w cells of the feature
map, C its channels, D channels of the residual block, K taps, nine per dilation.
"""

import math
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.layers.conv import Conv
from vis_jax.layers.deform import centre_tap
from vis_jax.layers.norm import GroupNorm, layer_norm
from vis_jax.ops.conv import convolve
from vis_jax.settings import Count, Range, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

_HE = nn.initializers.he_normal()


@section
class Settings:
    """`model.propagation`: propagation of masks between frames."""

    dim: Count = 128  # channels of the residual block that predicts offsets
    # Dilations of the deformable convolutions in cells; each has its own offsets.
    dilations: tuple[Annotated[int, Range(least=1)], ...] = (3, 6, 12)
    # Layers after the sum of warped and present features. "linear" reads the paper
    # literally: the present features then cancel in the softmax, and the work shrinks
    # to one channel.
    fuse: Literal["relu", "linear", "norm_relu"] = "relu"
    norm: Literal["group", "none"] = "group"  # in the residual block
    # Add a learned, maskless logit to the softmax, for cells that belong to no
    # instance. Not in the paper, where a single instance gets the whole attention map.
    null_slot: bool = False
    chunk: Count = 1024  # most cells at a time; memory grows with it

    def __post_init__(self) -> None:
        if not self.dilations or len(set(self.dilations)) < len(self.dilations):
            raise ValueError(
                "dilations: expected at least one, each of them once, got"
                f" {self.dilations}"
            )


class PreparedFeatures(NamedTuple):
    """Features computed once per frame, for all its pairs."""

    features: Float[Array, "h w C"]
    # Convolutions without bias are linear: applied to a difference of two frames, they
    # equal differences of these.
    first: Float[Array, "h w D"]  # first convolution of the residual block
    shortcut: Float[Array, "h w D"]
    attention: Float32[Array, "h w"]  # in [0, 1]: objectness of each cell


class MaskPropagation(nn.Module):
    """The propagation branch: offsets, deformable convolutions, softmax, attention.

    `prepare` runs once per frame and `taps` once per centre frame; `propagate` combines
    them for each pair. Coordinates, softmax and masks are float32.

    Attributes:
      channels: C.
    """

    settings: Settings
    channels: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        settings, channels = self.settings, self.channels
        dim = settings.dim

        def conv(kernel: int) -> Conv:
            return Conv(dim, kernel, kernel_init=_HE, dtype=self.dtype)

        self.conv1, self.conv2, self.shortcut = conv(3), conv(3), conv(1)
        if settings.norm == "group":
            self.norm1, self.norm2 = GroupNorm(self.dtype), GroupNorm(self.dtype)
            self.shortcut_norm = GroupNorm(self.dtype)
        zeros = nn.initializers.zeros
        self.offset_kernels = [
            self.param(f"offsets_{d}", zeros, (3, 3, dim, 18), jnp.float32)
            for d in settings.dilations
        ]
        self.warp_kernels = [
            self.param(f"warp_{d}", centre_tap, (3, 3, channels, channels))
            for d in settings.dilations
        ]
        if settings.fuse == "norm_relu":
            ones = nn.initializers.ones
            self.fuse_scale = self.param("fuse_scale", ones, (channels,), jnp.float32)
            self.fuse_bias = self.param("fuse_bias", zeros, (channels,), jnp.float32)
        self.mask_kernel = self.param(
            "mask_kernel", nn.initializers.normal(0.01), (channels, 1), jnp.float32
        )
        self.mask_bias = self.param("mask_bias", zeros, (), jnp.float32)
        if settings.null_slot:
            self.null_logit = self.param("null_logit", zeros, (), jnp.float32)
        self.attention = Conv(1, 3, use_bias=True, kernel_init=_HE, dtype=self.dtype)

    def __call__(
        self,
        centre: Float[Array, "h w C"],
        other: Float[Array, "h w C"],
        masks: Float32[Array, "N h w"],
        valid: Bool[Array, "N"],
    ) -> Float32[Array, "N h w"]:
        """Runs the whole branch for one pair; see `propagate`.

        Args:
          centre, other: features of the frames, both of stride 8.
          masks: masks of the centre frame.
          valid: False marks padded masks.
        """
        prepared = self.prepare(centre)
        return self.propagate(
            prepared, self.taps(centre), self.prepare(other), masks, valid
        )

    def prepare(self, features: Float[Array, "h w C"]) -> PreparedFeatures:
        """Computes the convolutions shared by all pairs of a frame."""
        features = features.astype(self.dtype)
        batch = features[None]
        attention = self.attention(batch)[0, ..., 0].astype(jnp.float32)
        return PreparedFeatures(
            features,
            self.conv1(batch)[0],
            self.shortcut(batch)[0],
            jax.nn.sigmoid(attention),
        )

    def taps(self, features: Float[Array, "h w C"]) -> Float[Array, "h w K c"]:
        """Multiplies a centre frame's features by every tap's matrix.

        A deformable convolution is linear in its input, and a mask scales all channels
        alike, so the products are shared by all instances and all other frames.
        Dilations are averaged.

        Returns:
          Array with c = C; c = 1 with `fuse` "linear", where the convolution to logits
          is applied first, too.
        """
        kernels = jnp.stack(self.warp_kernels).reshape(-1, *[self.channels] * 2)
        kernels = kernels / len(self.warp_kernels)
        if self.settings.fuse == "linear":
            kernels = kernels @ self.mask_kernel
        kernels = kernels.astype(self.dtype)
        return jnp.einsum("hwc,kcd->hwkd", features.astype(self.dtype), kernels)

    def propagate(
        self,
        centre: PreparedFeatures,
        taps: Float[Array, "h w K c"],
        other: PreparedFeatures,
        masks: Float32[Array, "N h w"],
        valid: Bool[Array, "N"],
    ) -> Float32[Array, "N h w"]:
        """Propagates the instances of the centre frame to another frame.

        Args:
          centre: frame of the masks.
          taps: taps of its features, from `taps`.
          other: target frame; may be the centre itself.
          masks: probabilities over the centre frame.
          valid: False marks padded instances, whose output masks are 0.

        Returns:
          The attention map of the other frame, divided among the valid instances by a
          softmax: masks sum to the attention map, less the share of `null_slot`.
        """
        logits = self._logits(self.offsets(centre, other), taps, other, masks)
        logits = jnp.where(valid[:, None, None], logits, -1e9)
        if self.settings.null_slot:
            null = jnp.full((1, *logits.shape[1:]), self.null_logit)
            shares = jax.nn.softmax(jnp.concatenate([logits, null]), axis=0)[:-1]
        else:
            shares = jax.nn.softmax(logits, axis=0)
        return jnp.where(valid[:, None, None], shares * other.attention[None], 0.0)

    def offsets(
        self, centre: PreparedFeatures, other: PreparedFeatures
    ) -> Float32[Array, "h w K 2"]:
        """Returns the offset y, x of each tap in cells, by tap, then dilation."""
        first = (centre.first - other.first)[None]
        shortcut = (centre.shortcut - other.shortcut)[None]
        if self.settings.norm == "group":
            first, shortcut = self.norm1(first), self.shortcut_norm(shortcut)
        second = self.conv2(jax.nn.relu(first))
        if self.settings.norm == "group":
            second = self.norm2(second)
        hidden = jax.nn.relu(second + shortcut)
        pairs = zip(self.offset_kernels, self.settings.dilations, strict=True)
        offsets = [_dilated(hidden, kernel, step) for kernel, step in pairs]
        found = jnp.concatenate(offsets, axis=-1)[0].astype(jnp.float32)
        return found.reshape(*found.shape[:2], -1, 2)

    def _logits(
        self,
        offsets: Float32[Array, "h w K 2"],
        taps: Float[Array, "h w K c"],
        other: PreparedFeatures,
        masks: Float32[Array, "N h w"],
    ) -> Float32[Array, "N h w"]:
        """Returns the logits of all instances at all cells, chunk by chunk."""
        height, width, count, _ = taps.shape
        present = other.features
        if self.settings.fuse == "linear":
            present = present @ self.mask_kernel.astype(self.dtype)
        at = tap_positions(offsets, self.settings.dilations)
        table = taps.reshape(height * width * count, -1)
        flat = masks.reshape(len(masks), -1).T

        # The backward pass gathers again: samples of all chunks would not fit in
        # memory.
        @jax.checkpoint
        def cell(
            inputs: tuple[Float32[Array, "K 2"], Float[Array, "c"]],
        ) -> Float32[Array, "N"]:
            position, feature = inputs
            cells, weights = _corners(position, (height, width))
            rows = cells * count + jnp.arange(count, dtype=jnp.int32)[:, None]
            shares = flat[cells] * weights[..., None]
            warped = jnp.einsum(
                "kqn,kqc->nc",
                shares.astype(self.dtype),
                table[rows],
                preferred_element_type=jnp.float32,
            )
            return self._fuse(warped + feature.astype(jnp.float32)[None])

        chunks = math.ceil(height * width / self.settings.chunk)
        logits = jax.lax.map(
            cell,
            (at.reshape(-1, count, 2), present.reshape(height * width, -1)),
            batch_size=math.ceil(height * width / chunks),
        )
        return logits.T.reshape(len(masks), height, width)

    def _fuse(self, total: Float32[Array, "N c"]) -> Float32[Array, "N"]:
        """Maps features to a logit by the rule of `fuse`."""
        if self.settings.fuse == "linear":
            return total[:, 0] + self.mask_bias
        if self.settings.fuse == "norm_relu":
            total = layer_norm(total, self.fuse_scale, self.fuse_bias)
        return (jax.nn.relu(total) @ self.mask_kernel)[:, 0] + self.mask_bias


def tap_positions(
    offsets: Float32[Array, "h w K 2"], dilations: tuple[int, ...]
) -> Float32[Array, "h w K 2"]:
    """Returns the sampling positions of taps: y, x in cells, first centre at 0, 0."""
    height, width = offsets.shape[:2]
    taps = np.indices((3, 3)).reshape(2, 9).T - 1
    taps = np.concatenate([taps * step for step in dilations])
    cells = np.moveaxis(np.indices((height, width)), 0, -1)
    return offsets + jnp.asarray(cells[:, :, None] + taps, jnp.float32)


class _Corners(NamedTuple):
    """The four cells around each position, with bilinear weights."""

    cells: Int32[Array, "K 4"]
    weights: Float32[Array, "K 4"]  # 0 outside the map


def _corners(at: Float32[Array, "K 2"], size: tuple[int, int]) -> _Corners:
    """Returns corners and weights, zero outside the map.

    At cell centres, where offsets start, gradients are one-sided, towards the next
    cell.
    """
    low = jnp.floor(at)
    part = at - low
    steps = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    corners = low[:, None] + steps[None]
    part = part[:, None]
    weights = jnp.where(steps[None] > 0, part, 1 - part).prod(axis=-1)
    limits = np.array(size, np.float32).reshape(1, 1, 2)
    inside = ((corners >= 0) & (corners < limits)).all(axis=-1)
    corners = jnp.where(inside[..., None], corners, 0.0).astype(jnp.int32)
    cells = corners[..., 0] * size[1] + corners[..., 1]
    return _Corners(cells, jnp.where(inside, weights, 0.0))


def _dilated(
    x: Float[Array, "1 h w D"], kernel: Float[Array, "3 3 D O"], dilation: int
) -> Float[Array, "1 h w O"]:
    """Applies a dilated convolution with "same" padding."""
    return convolve(x, kernel.astype(x.dtype), 1, dilation)
