"""Stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float


class DropPath(nn.Module):
    """Drops a residual branch for whole samples; survivors are scaled up.

    Huang et al., "Deep networks with stochastic depth", ECCV 2016. Draws from the rng
    stream 'drop_path'.

    Attributes:
      rate: probability of dropping, in [0, 1).
      axes: along which there are draws: 0, that of the samples, or that of the tokens.
    """

    rate: float
    axes: tuple[int, ...] = (0,)

    @nn.compact
    def __call__(
        self, x: Float[Array, "N *axes"], train: bool
    ) -> Float[Array, "N *axes"]:
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = tuple(n if axis in self.axes else 1 for axis, n in enumerate(x.shape))
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(kept, x / keep, jnp.zeros_like(x))
