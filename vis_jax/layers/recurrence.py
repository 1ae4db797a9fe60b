"""What a track remembers from frame to frame.

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
    """One step of tracks that share the weights.

    Attributes:
      kind: lstm; simple: one gate and no cell; none: the input is the output. The last
        two are rows of table 3 of the source.
      feedback: whether the gates see the last output, too: the released code.
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
        """The output and the cell of this frame.

        Args:
          x: of this frame.
          hidden: output of the last frame, 0 at first.
          cell: of the last frame, 0 at first.
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
