"""Propagates queries from one frame to the next.

Norouzi et al., "VidEoMT: your ViT is secretly also a video segmentation model", CVPR
2026 (fusion); "LVMT", 2026 (gru). Letters: Q queries, C channels.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import linear, torch_uniform
from vis_jax.typing import Array, DTypeLike, Float32, PRNGKeyArray

# none: each frame starts from the learned queries; fusion: a linear layer, plus the
# learned queries; gru: a gated recurrent unit.
Kind = Literal["none", "fusion", "gru"]


class QueryPropagation(nn.Module):
    """Propagation of queries to the next frame, in float32.

    Its output is the whole state of a video: with fusion the sum that enters the next
    frame, with gru the hidden state, which also enters it.

    Attributes:
      kind: see `Kind`.
      identity: initialise the linear layer of fusion to the identity.
    """

    kind: Kind
    identity: bool = False

    @nn.compact
    def __call__(
        self,
        found: Float32[Array, "N Q C"],
        entered: Float32[Array, "N Q C"],
        learned: Float32[Array, "Q C"],
    ) -> Float32[Array, "N Q C"]:
        """Returns the queries that enter the next frame.

        Args:
          found: queries after the last block, before the final norm.
          entered: queries that entered this frame; the learned queries in the first
            one.
          learned: the learned queries.
        """
        if self.kind == "fusion":
            return self._linear(found) + learned[None]
        if self.kind == "gru":
            return Gru(name="gru")(found, entered)
        return jnp.broadcast_to(learned[None], found.shape)

    def _linear(self, found: Float32[Array, "N Q C"]) -> Float32[Array, "N Q C"]:
        dim = found.shape[-1]
        if not self.identity:
            return linear(found, dim, "updater")
        return nn.Dense(dim, kernel_init=_eye, name="updater")(found)


def _eye(key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike) -> jax.Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


class Gru(nn.Module):
    """Gated recurrent unit in the form of PyTorch's GRUCell.

    Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014:
    r and u are gates, n = tanh(W_n x + b_n + r (U_n h + c_n)), and the new state is
    (1 - u) n + u h.
    """

    @nn.compact
    def __call__(
        self, x: Float32[Array, "*lead C"], hidden: Float32[Array, "*lead C"]
    ) -> Float32[Array, "*lead C"]:
        """Returns the new state.

        Args:
          x: input.
          hidden: previous state.
        """
        dim = x.shape[-1]
        init = torch_uniform(dim)

        def gates(name: str, value: jax.Array) -> list[jax.Array]:
            layer = nn.Dense(3 * dim, kernel_init=init, bias_init=init, name=name)
            return jnp.split(layer(value), 3, axis=-1)

        (r_x, u_x, n_x), (r_h, u_h, n_h) = gates("input", x), gates("hidden", hidden)
        reset, update = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(u_x + u_h)
        new = jnp.tanh(n_x + reset * n_h)
        return (1 - update) * new + update * hidden
