"""One update of the parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training.accumulate import Found, accumulated, loss_and_gradients
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
    """Scalars of one update, of the whole batch."""

    terms: dict[str, Float32[Array, ""]]  # weighted: they sum to the loss
    notes: dict[str, Float32[Array, ""]]  # see `LossAux`
    loss: Float32[Array, ""]
    gradient_norm: Float32[Array, ""]  # before clipping
    learning_rate: Float32[Array, ""]


class Rules(NamedTuple):
    """Rules of an update beside its optimiser."""

    accumulate: int = 1  # microbatches of the batch
    ema: float = 0.0  # decay of the moving average of the state


AT_ONCE = Rules()


class Layout(NamedTuple):
    """Placement of the arrays of an update."""

    mesh: Mesh
    kept: TrainState  # the sharding of each leaf between two updates


def make_update(
    system: System,
    optimizer: Optimizer,
    *,
    state: TrainState,
    mesh: Mesh,
    sharded: MeshSettings = NOT_DIVIDED,
    rules: Rules = AT_ONCE,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """The compiled update. It consumes the state given to it.

    Args:
      system: what is trained.
      optimizer: of its parameters.
      state: the state to come, or its shapes.
      mesh: over all devices.
      sharded: which leaves of the state are divided among them.
      rules: how the update is made.
    """
    kept = param_sharding(state, mesh, sharded)
    layout = Layout(mesh, kept)

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
    rules: Rules = AT_ONCE,
    layout: Layout | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Loss, gradient, update. Collections other than "params" have no gradient.

    Args:
      state: before the update.
      batch: all clips of it.
      system: what is trained.
      optimizer: of its parameters.
      rules: how the update is made.
      layout: None leaves all arrays where they are.
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
    rules: Rules,
    layout: Layout | None,
) -> Found:
    """Gradients of the batch; parameters gathered once, gradients split on the way."""
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

    if layout is not None:  # left to GSPMD, it might divide activations as well
        variables = everywhere(variables, layout.mesh)
    if rules.accumulate == 1:
        found = loss_and_gradients(loss, variables, batch, rng)
        return found._replace(gradients=place_gradients(found.gradients))
    return accumulated(
        loss, variables, batch, rng, count=rules.accumulate, place_batch=place_batch,
        place_gradients=place_gradients,
    )  # fmt: skip
