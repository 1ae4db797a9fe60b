"""Everything that an update changes and a checkpoint keeps."""

from typing import Any, NamedTuple

from vis_jax.typing import Array, Int32, PRNGKeyArray


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
