"""Plain vision transformer block with layer scale.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; Touvron et al., "Going
deeper with image transformers", ICCV 2021, for layer scale. Letters: S tokens, of which
the last P are patches.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.attention import KeysValues, weighted_values
from vis_jax.layers.mlp import VIT_INIT, GeluMlp
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.rotary import Rotary, rotate_patches
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32


class SelfAttention(nn.Module):
    """Self-attention of tokens, with softmax in float32.

    Attributes:
      heads: heads that share the channels.
      key_bias: whether keys have a bias; true in DINOv2, false in DINOv3.
    """

    heads: int
    key_bias: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N S C"],
        rotary: Rotary | None = None,
        attend: Bool[Array, "N A S"] | None = None,
    ) -> Float[Array, "N S C"]:
        """Returns the attended tokens.

        Args:
          x: tokens after their norm.
          rotary: positions of the patches, the last tokens; None = none.
          attend: True where a token may attend to another; A is S, or 1 for a mask
            shared by all; None = everywhere.
        """
        dim = x.shape[-1]
        dense = functools.partial(nn.Dense, dim, dtype=self.dtype, kernel_init=VIT_INIT)

        def project(name: str, bias: bool = True) -> jax.Array:
            y = dense(use_bias=bias, name=name)(x)
            return y.reshape(*x.shape[:2], self.heads, dim // self.heads)

        q, k, v = project("query"), project("key", self.key_bias), project("value")
        if rotary is not None:
            q, k = rotate_patches(q, rotary), rotate_patches(k, rotary)
        q = q * (dim // self.heads) ** -0.5
        y = weighted_values(q, KeysValues(k, v), attend)
        return dense(name="out")(y.reshape(x.shape))


class Block(nn.Module):
    """x += s1 attention(norm1(x)); x += s2 mlp(norm2(x)).

    The sum stays in float32, as under PyTorch autocast; attention and MLP compute in
    `dtype`.

    Attributes:
      heads, key_bias: parameters of the attention.
      mlp_dim: width of the MLP.
      epsilon: epsilon of the norms: 1e-6 in DINOv2, 1e-5 in DINOv3.
    """

    heads: int
    key_bias: bool
    mlp_dim: int
    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float32[Array, "N S C"],
        rotary: Rotary | None = None,
        attend: Bool[Array, "N A S"] | None = None,
    ) -> Float32[Array, "N S C"]:
        """Returns the tokens after this block; arguments as in `SelfAttention`."""
        attention = SelfAttention(self.heads, self.key_bias, self.dtype, name="attn")
        mlp = GeluMlp(self.mlp_dim, self.dtype, name="mlp")
        x = x + self._scaled(1, attention(self._norm(1, x), rotary, attend))
        return x + self._scaled(2, mlp(self._norm(2, x)))

    def _norm(self, number: int, x: jax.Array) -> jax.Array:
        return LayerNorm(self.dtype, self.epsilon, name=f"norm{number}")(x)

    def _scaled(self, number: int, y: jax.Array) -> jax.Array:
        shape = (y.shape[-1],)
        scale = self.param(f"scale{number}", nn.initializers.ones, shape, jnp.float32)
        return y.astype(jnp.float32) * scale[None, None]
