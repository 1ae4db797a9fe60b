"""Stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float


class DropPath(nn.Module):
    """Drops a residual branch for whole samples; survivors are scaled up.

    Huang et al., "Deep networks with stochastic depth", ECCV 2016. Draws from the rng
    stream 'drop_path'.
    """

    rate: float  # probability of dropping, in [0, 1)

    @nn.compact
    def __call__(
        self, x: Float[Array, "N *axes"], train: bool
    ) -> Float[Array, "N *axes"]:
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(kept, x / keep, jnp.zeros_like(x))
