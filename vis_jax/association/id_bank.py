"""The ID bank: embeds a map of ids as tokens of a frame.

Zhu et al., "Instance As Identity", ECCV 2022, section 3.3: one vector per id. As in the
released code, there is also one per pixel of a patch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.identity import BLANK
from vis_jax.layers.mlp import torch_uniform
from vis_jax.typing import Array, DTypeLike, Float, UInt8


class IDBank(nn.Module):
    """A convolution of the one-hot id map with patches that overlap by one pixel.

    Attributes:
      channels: channels of the one-hot map: N + 1, or 2 for objects and background.
      dim: size of an embedding.
      stride: pixels per token, even; the kernel side is one more.
    """

    channels: int
    dim: int
    stride: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        side = self.stride + 1
        shape = side, side, self.channels, self.dim
        xavier = nn.initializers.xavier_uniform()
        self.kernel = self.param("kernel", xavier, shape, jnp.float32)
        init = torch_uniform(side * side * self.channels)
        self.bias = self.param("bias", init, shape[3:], jnp.float32)

    def __call__(self, ids: UInt8[Array, "B H W"]) -> Float[Array, "B h w C"]:
        """Embeds an id map; ids from `channels` on, such as BLANK, add nothing."""
        patches = jax.nn.one_hot(
            _patches(ids, self.stride), self.channels, dtype=self.dtype
        )
        kernel = jnp.asarray(self.kernel, self.dtype)  # also accepts NumPy arrays
        found = jnp.einsum("bhwyxn,yxnc->bhwc", patches, kernel)
        return found + self.blank()[None, None, None]

    def blank(self) -> Float[Array, "C"]:
        """Returns the embedding of a map filled with BLANK."""
        return jnp.asarray(self.bias, self.dtype)


def _patches(ids: UInt8[Array, "B H W"], stride: int) -> UInt8[Array, "B h w k k"]:
    """Returns the pixels of each kernel: a block plus one row and column beyond."""
    height, width = ids.shape[1:]
    rows, columns = (-(-n // stride) for n in (height, width))
    before = stride // 2

    def pads(tokens: int, length: int) -> tuple[int, int]:
        return before, stride * (tokens + 1) - before - length

    margins = ((0, 0), pads(rows, height), pads(columns, width))
    ids = jnp.pad(ids, margins, constant_values=BLANK)
    blocks = ids.reshape(-1, rows + 1, stride, columns + 1, stride)
    blocks = blocks.transpose(0, 1, 3, 2, 4)
    here, below = blocks[:, :-1], blocks[:, 1:, :, :1]
    tall = jnp.concatenate([here, below], axis=3)
    return jnp.concatenate([tall[:, :, :-1], tall[:, :, 1:, :, :1]], axis=4)
