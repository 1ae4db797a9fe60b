"""Learning rates as functions of the number of updates done."""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float32

Schedule = Callable[[Array], Float32[Array, ""]]


def step(rate: float, *, decay_at: Sequence[int], warmup_steps: int) -> Schedule:
    """`rate`, divided by 10 at each of the updates `decay_at`.

    Args:
      rate: the rate after the warm-up.
      decay_at: updates, ascending; update 0 is the first one.
      warmup_steps: updates over which the rate rises linearly; 0 is none.

    Raises:
      ValueError: if `decay_at` does not ascend.
    """
    if list(decay_at) != sorted(set(decay_at)):
        raise ValueError(f"decay_at: expected ascending steps, got {tuple(decay_at)}")
    bounds = np.array(tuple(decay_at), np.int32)

    def schedule(count: Array) -> Array:
        passed = jnp.sum(count >= bounds)
        return rate * _warmup(count, warmup_steps) * 0.1**passed

    return schedule


def cosine(rate: float, *, num_steps: int, warmup_steps: int) -> Schedule:
    """`rate` after the warm-up, then half a cosine down to 0 at `num_steps`.

    Loshchilov and Hutter, "SGDR", ICLR 2017, Eq. 5, without restarts.

    Raises:
      ValueError: if the warm-up is as long as the run.
    """
    if warmup_steps >= num_steps:
        raise ValueError(
            f"warmup_steps: expected less than num_steps = {num_steps},"
            f" got {warmup_steps}"
        )

    def schedule(count: Array) -> Array:
        done = (count - warmup_steps) / (num_steps - warmup_steps)
        falling = 0.5 * (1.0 + jnp.cos(math.pi * jnp.clip(done, 0.0, 1.0)))
        return rate * _warmup(count, warmup_steps) * falling

    return schedule


def _warmup(count: Array, warmup_steps: int) -> Array:
    """1 / warmup_steps at the first update, 1 from update warmup_steps - 1 on."""
    return jnp.minimum(1.0, (count + 1.0) / max(warmup_steps, 1))
