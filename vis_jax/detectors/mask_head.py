"""Mask head: one mask per class for regions of interest.

He et al., "Mask R-CNN", ICCV 2017, section 3. Letters: R regions, S side of their
features; masks have twice that side and cover the region's box.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import MSRA, Conv
from vis_jax.settings import Count, section
from vis_jax.typing import Array, DTypeLike, Float, Float32, Int32


@section
class Settings:
    """`model.mask_head`."""

    dim: Count = 256  # channels
    convs: Count = 4  # 3x3 convolutions before the upsampling


class Upsample(nn.Module):
    """Transposed convolution of kernel 2 and stride 2: outputs do not overlap."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N h w D"]:
        count, height, width, channels = x.shape
        shape = (channels, 2, 2, self.features)
        # Each output depends on one input cell, so the fan-in is the channels.
        init = nn.initializers.variance_scaling(
            2.0, "fan_in", "normal", in_axis=0, out_axis=3, batch_axis=(1, 2)
        )
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape[3:], jnp.float32)
        y = jnp.einsum(
            "nhwc,cijd->nhiwjd", x.astype(self.dtype), kernel.astype(self.dtype)
        )
        y = y.reshape(count, 2 * height, 2 * width, self.features)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class MaskHead(nn.Module):
    """Convolutions, 2x upsampling, and one mask per class.

    Attributes:
      num_classes: without background.
      dim: channels of the hidden layers.
      convs: number of hidden layers.
    """

    num_classes: int
    dim: int
    convs: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.hidden = [
            Conv(self.dim, 3, use_bias=True, dtype=self.dtype, name=f"conv{index}")
            for index in range(1, self.convs + 1)
        ]
        self.upsample = Upsample(self.dim, self.dtype)
        self.mask_logits = Conv(
            self.num_classes, 1, use_bias=True, kernel_init=MSRA, dtype=self.dtype
        )

    def __call__(self, pooled: Float[Array, "R S S C"]) -> Float32[Array, "R S2 S2 K"]:
        """Returns mask logits for every class from RoI features."""
        return self.predict(self.convolve(pooled))

    def convolve(self, pooled: Float[Array, "R S S C"]) -> Float[Array, "R S S D"]:
        """Returns the last hidden layer before upsampling."""
        x = pooled
        for conv in self.hidden:
            x = nn.relu(conv(x))
        return x

    def predict(self, hidden: Float[Array, "R S S D"]) -> Float32[Array, "R S2 S2 K"]:
        """Returns mask logits for every class from the last hidden layer."""
        x = nn.relu(self.upsample(hidden))
        return self.mask_logits(x).astype(jnp.float32)


class FlowMaskHead(MaskHead):
    """A mask head that also receives the last hidden layer of the previous stage.

    Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019, section
    3.2: a 1x1 convolution of that layer is added to the RoI features.
    """

    @nn.compact
    def join(
        self, pooled: Float[Array, "R S S C"], before: Float[Array, "R S S D"]
    ) -> Float[Array, "R S S C"]:
        """Combines RoI features with those of the previous stage.

        Args:
          pooled: pooled features of the regions.
          before: last hidden layer of the previous stage, for the same regions.
        """
        flow = Conv(pooled.shape[-1], 1, use_bias=True, dtype=self.dtype, name="flow")
        return pooled + nn.relu(flow(before))


def of_label(
    mask_logits: Float32[Array, "R h w K"], labels: Int32[Array, "R"]
) -> Float32[Array, "R h w"]:
    """Returns the mask of one class per region; label K takes the last class."""
    index = jnp.minimum(labels, mask_logits.shape[-1] - 1)
    return jnp.take_along_axis(
        mask_logits, index.reshape(-1, 1, 1, 1), axis=-1
    ).squeeze(-1)


def merge_masks(
    mask_logits: tuple[Float32[Array, "B N H W K"], ...], labels: Int32[Array, "B N"]
) -> Float32[Array, "B N H W"]:
    """Returns mask probabilities of one class, averaged over several heads.

    Args:
      mask_logits: mask logits of each head.
      labels: the class; padding's K is read as K - 1.
    """
    chosen = [jax.nn.sigmoid(jax.vmap(of_label)(x, labels)) for x in mask_logits]
    return sum(chosen[1:], chosen[0]) / len(chosen)
