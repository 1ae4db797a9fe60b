"""Feed-forward layers and stochastic depth."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, DTypeLike, Float, PRNGKeyArray

# Initialisation of kernels in vision transformers.
VIT_INIT = nn.initializers.truncated_normal(0.02)


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """Initialises uniformly in +-1 / sqrt(fan_in), as PyTorch's linear layers."""
    bound = fan_in**-0.5

    def init(
        key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def gelu(x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
    """Exact GELU by erf in float32, as PyTorch; JAX's is by erfc, which is slower."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def linear(
    x: Float[Array, "*lead C"], features: int, name: str, dtype: DTypeLike = jnp.float32
) -> Float[Array, "*lead D"]:
    """Applies a linear layer inside a compact module; initialised as in PyTorch."""
    init = torch_uniform(x.shape[-1])
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)(
        x
    )


class Mlp(nn.Module):
    """`layers` linear layers with ReLU in between; PyTorch's default initialisation."""

    hidden: int
    out: int
    layers: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead D"]:
        for index in range(self.layers):
            last = index == self.layers - 1
            features = self.out if last else self.hidden
            x = linear(x, features, f"layers_{index}", self.dtype)
            x = x if last else nn.relu(x)
        return x


class GeluMlp(nn.Module):
    """MLP of a vision transformer: fc2(gelu(fc1(x))) with the exact GELU.

    Attributes:
      hidden: channels between the two layers.
    """

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=VIT_INIT)
        y = gelu(dense(self.hidden, name="fc1")(x))
        return dense(x.shape[-1], name="fc2")(y)


class FeedForward(nn.Module):
    """Feed-forward block of a transformer: x -> W2 relu(W1 x)."""

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*lead C"]) -> Float[Array, "*lead C"]:
        init = nn.initializers.xavier_uniform()
        dim = x.shape[-1]
        h = nn.Dense(
            self.hidden,
            dtype=self.dtype,
            kernel_init=init,
            bias_init=torch_uniform(dim),
            name="linear1",
        )(x)
        return nn.Dense(
            dim,
            dtype=self.dtype,
            kernel_init=init,
            bias_init=torch_uniform(self.hidden),
            name="linear2",
        )(nn.relu(h))


class DropPath(nn.Module):
    """Drops a residual branch for whole samples; kept branches are scaled up.

    Huang et al., "Deep networks with stochastic depth", ECCV 2016. Draws from the rng
    stream 'drop_path'.

    Attributes:
      rate: probability of dropping, in [0, 1).
      axes: axes with independent draws: 0 for samples, or those of the tokens.
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
