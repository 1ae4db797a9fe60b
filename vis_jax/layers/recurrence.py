"""Recurrent memory of tracks.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.5, Eq. 5 and 6.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import linear
from vis_jax.typing import Array, Float32

Kind = Literal["lstm", "simple", "none"]


class Recurrence(nn.Module):
    """One recurrent step, with weights shared by all tracks.

    Attributes:
      kind: lstm; simple: one gate and no cell; none: the input is the output. The last
        two are rows of table 3 of the source.
      feedback: whether the gates also see the last output, as in the released code.
    """

    kind: Kind
    feedback: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float32[Array, "*lead D"],
        hidden: Float32[Array, "*lead D"],
        cell: Float32[Array, "*lead D"],
    ) -> tuple[Float32[Array, "*lead D"], Float32[Array, "*lead D"]]:
        """Returns the output and the cell of this frame.

        Args:
          x: input of this frame.
          hidden: output of the last frame, initially 0.
          cell: cell state of the last frame, initially 0.
        """
        dim = x.shape[-1]
        if self.kind == "none":
            return x, cell
        if self.kind == "simple":
            gate = jax.nn.sigmoid(linear(x, dim, "gate"))
            return gate * jnp.tanh(linear(x, dim, "value")), cell
        gates = linear(x, 4 * dim, "gates")
        if self.feedback:
            gates += linear(hidden, 4 * dim, "feedback")
        forget, enter, leave, value = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(value)
        return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell
