"""Everything that an update changes and a checkpoint keeps."""

from typing import Any, NamedTuple

from vis_jax.typing import Array, Int32, PRNGKeyArray


class TrainState(NamedTuple):
    """A run between two updates."""

    step: Int32[Array, ""]  # updates done, and batches read
    variables: dict[str, dict]  # "params", optimised, and other collections
    opt_state: Any  # what the optax transform keeps
    rng: PRNGKeyArray  # never changes: update i draws from fold_in(rng, i)
