"""The training step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training.accumulate import (
    LossAndGradients,
    accumulated,
    loss_and_gradients,
)
from vis_jax.training.optimizer import Optimizer
from vis_jax.training.sharding import (
    NOT_DIVIDED,
    MeshSettings,
    batch_sharding,
    everywhere,
    param_sharding,
)
from vis_jax.training.state import TrainState, move_average
from vis_jax.typing import Array, Float32, PRNGKeyArray


class StepMetrics(NamedTuple):
    """Scalars of one update, over the global batch."""

    terms: dict[str, Float32[Array, ""]]  # weighted: they sum to the loss
    notes: dict[str, Float32[Array, ""]]  # see `LossAux`
    loss: Float32[Array, ""]
    gradient_norm: Float32[Array, ""]  # before clipping
    learning_rate: Float32[Array, ""]


class UpdateRules(NamedTuple):
    """Settings of an update besides its optimiser."""

    accumulate: int = 1  # number of microbatches
    ema: float = 0.0  # decay of the moving average


AT_ONCE = UpdateRules()


class Shardings(NamedTuple):
    """Shardings of the arrays of an update."""

    mesh: Mesh
    kept: TrainState  # sharding of each leaf between updates


def make_update(
    system: System,
    optimizer: Optimizer,
    *,
    state: TrainState,
    mesh: Mesh,
    sharded: MeshSettings = NOT_DIVIDED,
    rules: UpdateRules = AT_ONCE,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Returns the jitted update, which donates its input state.

    Args:
      system: system to train.
      optimizer: its optimiser.
      state: the state, or its shapes.
      mesh: mesh of all devices.
      sharded: sharding rules of the state.
      rules: settings of the update.
    """
    kept = param_sharding(state, mesh, sharded)
    layout = Shardings(mesh, kept)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        return update_once(
            state, batch, system=system, optimizer=optimizer, rules=rules, layout=layout
        )

    return jax.jit(
        update,
        in_shardings=(kept, batch_sharding(mesh)),
        out_shardings=(kept, None),
        donate_argnums=0,
    )


def update_once(
    state: TrainState,
    batch: Batch,
    *,
    system: System,
    optimizer: Optimizer,
    rules: UpdateRules = AT_ONCE,
    layout: Shardings | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Computes loss and gradients and updates the state; only "params" has gradients.

    Args:
      state: state before the update.
      batch: the global batch.
      system: system to train.
      optimizer: its optimiser.
      rules: settings of the update.
      layout: shardings to apply; None: none.
    """
    params = state.variables["params"]
    rng = jax.random.fold_in(state.rng, state.step)
    found = _gradients(state, batch, rng, system, optimizer, rules, layout)
    gradients = found.gradients
    updates, opt_state = optimizer.transform.update(gradients, state.opt_state, params)
    variables = state.variables | {"params": optax.apply_updates(params, updates)}
    if found.aux.batch_stats:
        variables["batch_stats"] = found.aux.batch_stats
    average = state.average
    if average is not None:
        average = move_average(average, variables, decay=rules.ema, step=state.step)
    metrics = StepMetrics(
        terms=found.aux.terms,
        notes=found.aux.notes,
        loss=found.loss,
        gradient_norm=optax.tree.norm(gradients),
        learning_rate=optimizer.learning_rate(state.step),
    )
    state = TrainState(state.step + 1, variables, opt_state, state.rng, average)
    return state, metrics


def _gradients(
    state: TrainState,
    batch: Batch,
    rng: PRNGKeyArray,
    system: System,
    optimizer: Optimizer,
    rules: UpdateRules,
    layout: Shardings | None,
) -> LossAndGradients:
    """Computes gradients; gathers parameters once and reduce-scatters gradients."""
    variables = state.variables

    def loss(variables: dict, batch: Batch, rng: PRNGKeyArray) -> tuple:
        params = optimizer.freeze(variables["params"])
        progress = {"step": state.step}  # see `systems.system.Loss`
        known = {"params": params, "progress": progress}
        return system.loss(variables | known, batch, rng)

    def place_batch(batch: Batch) -> Batch:
        if layout is None:
            return batch
        return jax.lax.with_sharding_constraint(batch, batch_sharding(layout.mesh))

    def place_gradients(gradients: dict) -> dict:
        if layout is None:
            return gradients
        kept = layout.kept.variables["params"]
        return jax.lax.with_sharding_constraint(gradients, kept)

    if layout is not None:  # GSPMD on its own might shard activations as well
        variables = everywhere(variables, layout.mesh)
    if rules.accumulate == 1:
        found = loss_and_gradients(loss, variables, batch, rng)
        return found._replace(gradients=place_gradients(found.gradients))
    return accumulated(
        loss, variables, batch, rng, count=rules.accumulate, place_batch=place_batch,
        place_gradients=place_gradients,
    )  # fmt: skip
