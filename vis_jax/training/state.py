"""Training state, including the moving average of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray

AVERAGED = ("params", "batch_stats")  # collections that training changes


class TrainState(NamedTuple):
    """State of a run between two updates."""

    step: Int32[Array, ""]  # updates done = batches read
    variables: dict[str, dict]  # "params", optimised, and other collections
    opt_state: Any  # state of the optax transform
    rng: PRNGKeyArray  # constant: update i uses fold_in(rng, i)
    # Moving averages of the trained collections; None: the run keeps none.
    average: dict[str, dict] | None = None

    @property
    def evaluated(self) -> dict[str, dict]:
        """Returns the variables to evaluate: averaged, if the run keeps an average."""
        return {**self.variables, **(self.average or {})}


def start_average(variables: dict[str, dict]) -> dict[str, dict]:
    """Returns the initial average: copies of the trained collections."""
    changing = {name: variables[name] for name in AVERAGED if name in variables}
    return jax.tree.map(jnp.copy, changing)


def move_average(
    average: dict[str, dict],
    variables: dict[str, dict],
    *,
    decay: float,
    step: Int32[Array, ""],
) -> dict[str, dict]:
    """Updates the moving average.

    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    in the exponential form. The decay is min(decay, (1 + step) / (10 + step)), as in
    TensorFlow's `ExponentialMovingAverage`: early weights are soon forgotten.

    Args:
      average: as returned by `start_average` or this function.
      variables: variables after the update.
      decay: weight of the old average.
      step: number of updates before this one.
    """
    done = step.astype(jnp.float32)
    kept: Float32[Array, ""] = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    new = {name: variables[name] for name in average}
    # This form leaves unchanged values bit-identical.
    return jax.tree.map(lambda old, x: old + (1.0 - kept) * (x - old), average, new)
