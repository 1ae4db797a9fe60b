"""Multi-head attention whose keys and values can be projected ahead of time."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, PRNGKeyArray

# Vanishes in a float32 softmax but is finite: no mask gives NaN.
_BLOCKED = -1e9
# Logits that a CPU keeps in its cache: 16 MB in float32.
_CACHED = 2**22


def check_dim(dim: int, heads: int) -> None:
    """Checks the settings `dim` and `heads` of a transformer on images.

    Raises:
      ValueError: heads cannot share the channels evenly, or 2D sine embeddings cannot.
    """
    if dim % heads or dim % 4:
        raise ValueError(
            f"dim: expected a multiple of 4 and of heads, {heads}, got {dim}"
        )


class KeysValues(NamedTuple):
    """Projected keys and values, split into heads."""

    keys: Float[Array, "*lead K heads d"]
    values: Float[Array, "*lead K heads d"]


def weighted_values(
    queries: Float[Array, "*lead Q heads d"],
    memory: KeysValues,
    attend: Bool[Array, "*lead A K"] | None,
) -> Float[Array, "*lead Q heads d"]:
    """Returns each head's weighted values, by a float32 softmax over the keys.

    On CPUs, heads whose logits together exceed the cache take turns. Their sums are in
    another order, so that values are equal up to rounding; where a mask shared by all
    queries blocks every key, they are finite, but differ.

    Args:
      queries: projected and scaled.
      memory: see the type.
      attend: True where a query may attend to a key; A is Q, or 1 for a mask shared by
        all queries; None = everywhere.
    """
    # Matrix products with the heads in front: of the einsum "...hqk,...khd->...qhd" XLA
    # for CPUs makes a product of transposed copies, twice as slow over long sequences.
    heads = tuple(jnp.moveaxis(x, -2, 0) for x in (queries, *memory))

    def together(q: Array, k: Array, v: Array) -> Array:
        return _weighted(q, k, v, attend)

    def alone(q: Array, k: Array, v: Array) -> Array:
        return _in_few_passes(q, k, v, attend)

    def in_turn(q: Array, k: Array, v: Array) -> Array:
        return jax.lax.map(lambda head: alone(*head), (q, k, v))

    logits = queries.size // queries.shape[-1] * memory.keys.shape[-3]
    # An export for any number of frames has a size that cannot be compared.
    if not isinstance(logits, int) or logits <= _CACHED:
        values = together(*heads)
    else:
        values = jax.lax.platform_dependent(*heads, cpu=in_turn, default=together)
    return jnp.moveaxis(values, 0, -2)


def _weighted(
    queries: Float[Array, "*heads Q d"],
    keys: Float[Array, "*heads K d"],
    values: Float[Array, "*heads K d"],
    attend: Bool[Array, "*lead A K"] | None,
) -> Float[Array, "*heads Q d"]:
    weights = jax.nn.softmax(_logits(queries, keys, attend), axis=-1)
    return jnp.matmul(weights.astype(values.dtype), values)


def _in_few_passes(
    queries: Float[Array, "*lead Q d"],
    keys: Float[Array, "*lead K d"],
    values: Float[Array, "*lead K d"],
    attend: Bool[Array, "*lead A K"] | None,
) -> Float[Array, "*lead Q d"]:
    """`_weighted` of one head, with fewer passes over the logits, for CPUs.

    A mask shared by all queries becomes one more channel of the keys, and the sum of
    the weights divides the output, which is smaller than the weights.
    """
    if attend is not None and attend.shape[-2] == 1:
        bias = jnp.where(attend, 0.0, _BLOCKED).astype(keys.dtype)
        keys = jnp.concatenate([keys, jnp.swapaxes(bias, -2, -1)], axis=-1)
        ones = jnp.ones_like(queries[..., :1])
        queries, attend = jnp.concatenate([queries, ones], axis=-1), None
    logits = _logits(queries, keys, attend)
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(values.dtype)
    found = jnp.matmul(weights, values, preferred_element_type=jnp.float32)
    return (found / total).astype(values.dtype)


def _logits(
    queries: Float[Array, "*heads Q d"],
    keys: Float[Array, "*heads K d"],
    attend: Bool[Array, "*lead A K"] | None,
) -> Float32[Array, "*heads Q K"]:
    logits = jnp.matmul(
        queries, jnp.swapaxes(keys, -2, -1), preferred_element_type=jnp.float32
    )
    if attend is None:
        return logits
    return jnp.where(jnp.broadcast_to(attend, logits.shape), logits, _BLOCKED)


def _fused_xavier(
    key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Xavier uniform over query, key and value as one [C, 3 C] matrix, as PyTorch."""
    dim = shape[0]
    bound = math.sqrt(6.0 / (dim + 3 * dim))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class MultiHeadAttention(nn.Module):
    """Vaswani et al., "Attention is all you need", section 3.2; softmax in float32.

    Attributes:
      dim, heads: channels, and the heads that share them.
      kernel_init: initialiser of queries, keys and values.
      bias_init: initialiser of all four layers.
    """

    dim: int
    heads: int
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable[..., Array] = _fused_xavier
    bias_init: Callable[..., Array] = nn.initializers.zeros

    def setup(self) -> None:
        shape = (self.heads, self.dim // self.heads)

        def project() -> nn.DenseGeneral:
            return nn.DenseGeneral(
                shape,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
            )

        self.query, self.key, self.value = project(), project(), project()
        self.out = nn.DenseGeneral(
            self.dim,
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=self.bias_init,
        )

    def __call__(
        self,
        query: Float[Array, "*lead Q C"],
        key: Float[Array, "*lead K C"],
        value: Float[Array, "*lead K C"],
        attend: Bool[Array, "*lead Q K"] | None = None,
    ) -> Float[Array, "*lead Q C"]:
        """Attends from queries to keys.

        Args:
          query, key, value: tokens before projection.
          attend: True where a query may attend to a key; None = everywhere.
        """
        return self.look(query, self.project(key, value), attend)

    def project(
        self, key: Float[Array, "*lead K C"], value: Float[Array, "*lead K C"]
    ) -> KeysValues:
        """Projects keys and values for `look`."""
        return KeysValues(self.key(key), self.value(value))

    def look(
        self,
        query: Float[Array, "*lead Q C"],
        memory: KeysValues,
        attend: Bool[Array, "*lead Q K"] | None = None,
    ) -> Float[Array, "*lead Q C"]:
        """Attends to keys and values that are already projected."""
        q = self.query(query) * (self.dim // self.heads) ** -0.5
        return self.out(weighted_values(q, memory, attend))
