"""Random keys whose programs compile in a quarter of the time.

Drawing initial values is most of what XLA compiles of `init`: for a small IAI 4.5
seconds with JAX's default keys, 1.1 with these. Each number is a hash of its place and
of the key; the hash is `lowbias32` of Wellons, "Prospecting for hash functions", 2018.
Good enough to draw parameters and samples, not for statistics.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

_SPREAD = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio
_DTYPES = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}


@contextlib.contextmanager
def used() -> Iterator[None]:
    """Makes them the default of `jax.random.key` and `wrap_key_data`."""
    makers = {
        name: functools.partial(_make, getattr(jax.random, name))
        for name in ("key", "wrap_key_data")
    }
    with patch.multiple(jax.random, **makers):
        yield


def _make(plain: Any, data: Any, *, impl: Any = None) -> jax.Array:
    return plain(data, impl=_IMPL if impl is None else impl)


def _hash(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _draw(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draws words of 32 bits."""
    places = jax.lax.iota(jnp.uint32, math.prod(shape))
    return _hash((places * _SPREAD + key[0]) ^ key[1]).reshape(shape)


def _seed(seed: jax.Array) -> jax.Array:
    word = jnp.asarray(seed).astype(jnp.uint32)
    return jnp.stack([_hash(word), word])


def _split(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    # The order of the words is not that of `_bits`, which would draw the keys again.
    return _draw(key[::-1], (*shape, 2))


def _bits(key: jax.Array, width: int, shape: Sequence[int]) -> jax.Array:
    return _draw(key, shape).astype(_DTYPES[width])


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    word = jnp.asarray(data).astype(jnp.uint32)
    return jnp.stack([_hash(key[0] ^ word), _hash(key[1] + word * _SPREAD)])


_IMPL = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in,
    name="fast", tag="fast",
)  # fmt: skip
