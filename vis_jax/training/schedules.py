"""Learning-rate schedules: functions of the number of updates done."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vis_jax.typing import Array, Float32, Int32

Count = Int32[Array | np.int32, ""]  # updates done
Schedule = Callable[[Count], Float32[Array, ""]]

_POWER = 0.9  # exponent of the polynomial schedule


class Warmup(NamedTuple):
    """Linear warm-up.

    Attributes:
      steps: length in updates; 0 = none.
      factor: fraction of the rate at update 0; the full rate is reached at update
        `steps`, as in mmcv. With 0, update 0 has 1 / steps of the rate and update
        steps - 1 the full rate.
    """

    steps: int
    factor: float


def step(rate: float, *, decay_at: Sequence[int], warmup: Warmup) -> Schedule:
    """Returns a step schedule: `rate`, divided by 10 at each of `decay_at`.

    Args:
      rate: learning rate after the warm-up.
      decay_at: updates, ascending, counted from 0.
      warmup: linear warm-up.

    Raises:
      ValueError: if `decay_at` is not ascending.
    """
    if list(decay_at) != sorted(set(decay_at)):
        raise ValueError(f"decay_at: expected ascending steps, got {tuple(decay_at)}")
    bounds = np.array(tuple(decay_at), np.int32)

    def schedule(count: Count) -> Float32[Array, ""]:
        passed = jnp.sum(count >= bounds)
        return rate * _share(count, warmup) * 0.1**passed

    return schedule


def cosine(rate: float, *, num_steps: int, warmup: Warmup) -> Schedule:
    """Returns a cosine schedule: `rate` after the warm-up, 0 at `num_steps`.

    Loshchilov and Hutter, "SGDR", ICLR 2017, Eq. 5, without restarts.

    Raises:
      ValueError: if the warm-up is as long as the run.
    """
    _check_length(num_steps, warmup)

    def schedule(count: Count) -> Float32[Array, ""]:
        done = (count - warmup.steps) / (num_steps - warmup.steps)
        falling = 0.5 * (1.0 + jnp.cos(math.pi * jnp.clip(done, 0.0, 1.0)))
        return rate * _share(count, warmup) * falling

    return schedule


def poly(rate: float, *, num_steps: int, warmup: Warmup) -> Schedule:
    """Returns a polynomial schedule: rate * (1 - progress)^0.9 after the warm-up.

    Chen et al., "DeepLab", TPAMI 2018, section 4.1.2.

    Raises:
      ValueError: if the warm-up is as long as the run.
    """
    _check_length(num_steps, warmup)

    def schedule(count: Count) -> Float32[Array, ""]:
        done = (count - warmup.steps) / (num_steps - warmup.steps)
        falling = jnp.clip(1.0 - done, 0.0, 1.0) ** _POWER
        return rate * _share(count, warmup) * falling

    return schedule


def delayed(schedule: Schedule, updates: int) -> Schedule:
    """Delays a schedule by a number of updates with rate 0."""

    def later(count: Count) -> Float32[Array, ""]:
        return jnp.where(count < updates, 0.0, schedule(count - updates))

    return later


def _check_length(num_steps: int, warmup: Warmup) -> None:
    if warmup.steps >= num_steps:
        raise ValueError(
            f"warmup_steps: expected less than num_steps = {num_steps},"
            f" got {warmup.steps}"
        )


def _share(count: Count, warmup: Warmup) -> Float32[Array, ""]:
    """Fraction of the rate, from 1 / steps or `factor` at the first update to 1."""
    steps, factor = warmup
    if steps == 0 or factor == 0.0:
        return jnp.minimum(1.0, (count + 1.0) / max(steps, 1))
    return jnp.minimum(1.0, 1.0 - (1.0 - count / steps) * (1.0 - factor))
