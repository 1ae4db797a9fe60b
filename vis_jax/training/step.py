"""One update of the parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training.optimizer import Optimizer
from vis_jax.training.sharding import batch_sharding, param_sharding
from vis_jax.training.state import TrainState
from vis_jax.typing import Array, Float32


class StepMetrics(NamedTuple):
    """Scalars of one update, of the whole batch."""

    terms: dict[str, Float32[Array, ""]]  # weighted: they sum to the loss
    notes: dict[str, Float32[Array, ""]]  # see `LossAux`
    loss: Float32[Array, ""]
    gradient_norm: Float32[Array, ""]  # before clipping
    learning_rate: Float32[Array, ""]


def make_update(
    system: System, optimizer: Optimizer, *, state: TrainState, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """The compiled update. It consumes the state given to it.

    Args:
      state: the state to come, or its shapes.
    """

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        return update_once(state, batch, system=system, optimizer=optimizer)

    kept = param_sharding(state, mesh)
    return jax.jit(
        update,
        in_shardings=(kept, batch_sharding(mesh)),
        out_shardings=(kept, None),
        donate_argnums=0,
    )


def update_once(
    state: TrainState, batch: Batch, *, system: System, optimizer: Optimizer
) -> tuple[TrainState, StepMetrics]:
    """Loss, gradient, update. Collections other than "params" have no gradient."""
    params = state.variables["params"]
    rng = jax.random.fold_in(state.rng, state.step)

    def loss_of(params: dict) -> tuple:
        variables = state.variables | {"params": optimizer.freeze(params)}
        return system.loss(variables, batch, rng)

    (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, opt_state = optimizer.transform.update(gradients, state.opt_state, params)
    variables = state.variables | {"params": optax.apply_updates(params, updates)}
    if aux.batch_stats:
        variables["batch_stats"] = aux.batch_stats
    metrics = StepMetrics(
        terms=aux.terms,
        notes=aux.notes,
        loss=loss,
        gradient_norm=optax.tree.norm(gradients),
        learning_rate=optimizer.learning_rate(state.step),
    )
    state = TrainState(state.step + 1, variables, opt_state, state.rng)
    return state, metrics
