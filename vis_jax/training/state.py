"""All that an update changes and a checkpoint keeps, and the average of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray

AVERAGED = ("params", "batch_stats")  # collections that training changes


class TrainState(NamedTuple):
    """A run between two updates."""

    step: Int32[Array, ""]  # updates done, and batches read
    variables: dict[str, dict]  # "params", optimised, and other collections
    opt_state: Any  # what the optax transform keeps
    rng: PRNGKeyArray  # never changes: update i draws from fold_in(rng, i)
    # Moving averages of the collections that change; None: the run keeps none.
    average: dict[str, dict] | None = None

    @property
    def evaluated(self) -> dict[str, dict]:
        """The variables that are evaluated: with averages, if the run keeps them."""
        return {**self.variables, **(self.average or {})}


def start_average(variables: dict[str, dict]) -> dict[str, dict]:
    """The average before the first update: copies of the collections that change."""
    changing = {name: variables[name] for name in AVERAGED if name in variables}
    return jax.tree.map(jnp.copy, changing)


def move_average(
    average: dict[str, dict],
    variables: dict[str, dict],
    *,
    decay: float,
    step: Int32[Array, ""],
) -> dict[str, dict]:
    """The average after an update.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    in the exponential form. The decay is min(decay, (1 + step) / (10 + step)), as in
    TensorFlow's `ExponentialMovingAverage`: early weights are soon forgotten.

    Args:
      average: as `start_average` makes it.
      variables: after the update.
      decay: share of the average that is kept.
      step: updates before this one.
    """
    done = step.astype(jnp.float32)
    kept: Float32[Array, ""] = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    new = {name: variables[name] for name in average}
    # In this form, what does not change stays the same to the last bit.
    return jax.tree.map(lambda old, x: old + (1.0 - kept) * (x - old), average, new)
