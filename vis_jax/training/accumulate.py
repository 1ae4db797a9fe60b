"""Loss and gradients of a batch, computed at once or averaged over microbatches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.structures import Batch, LossAux
from vis_jax.systems.system import Loss
from vis_jax.typing import Array, Float32, PRNGKeyArray


class LossAndGradients(NamedTuple):
    """Loss and gradients of one batch."""

    loss: Float32[Array, ""]
    aux: LossAux
    gradients: dict  # with respect to "params"


def check_microbatches(count: int, clips: int, *, devices: int) -> None:
    """Raises ValueError unless a batch can be split into microbatches.

    Args:
      count: number of microbatches.
      clips: clips of the global batch.
      devices: number of devices, each with the same number of clips.
    """
    share = clips // devices
    if share % count:
        raise ValueError(
            f"train.accumulate: expected a divisor of {share}, the clips of a batch on"
            f" each of {devices} devices, got {count}"
        )


def loss_and_gradients(
    loss: Loss, variables: dict, batch: Batch, rng: PRNGKeyArray
) -> LossAndGradients:
    """Computes loss and gradients of a batch; only "params" has gradients."""

    def loss_of(params: dict) -> tuple:
        return loss(variables | {"params": params}, batch, rng)

    (value, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(
        variables["params"]
    )
    return LossAndGradients(value, aux, gradients)


def accumulated(
    loss: Loss,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
    *,
    count: int,
    place_batch: Callable[[Batch], Batch],
    place_gradients: Callable[[dict], dict],
) -> LossAndGradients:
    """Averages loss, terms and gradients over sequential microbatches.

    A loss normalised by the number of objects or positives uses the number in the
    microbatch, so the mean equals data parallelism over `count` devices, not the loss
    of the whole batch. Batch-norm statistics are computed per microbatch and updated
    `count` times; notes, which are counts, are summed. Microbatch i uses the key
    fold_in(rng, i).

    Args:
      loss: loss of a system.
      variables: include "params".
      batch: clip i belongs to microbatch i % count, so that a device keeps its clips.
      rng: random key of the update.
      count: number of microbatches; divides the clips of each device.
      place_batch: applies the sharding of a microbatch.
      place_gradients: applies the sharding of the gradient sum.
    """
    parts = jax.tree.map(lambda leaf: _split(leaf, count), batch)

    def add(carry: tuple, part: tuple) -> tuple:
        (sums, stats), (number, microbatch) = carry, part
        found = loss_and_gradients(
            loss,
            variables | ({"batch_stats": stats} if stats else {}),
            place_batch(microbatch),
            jax.random.fold_in(rng, number),
        )
        sums = place_gradients(jax.tree.map(jnp.add, sums, found.gradients))
        values = (found.loss, found.aux.terms, found.aux.notes)
        return (sums, dict(found.aux.batch_stats) or stats), values

    zeros = place_gradients(jax.tree.map(jnp.zeros_like, variables["params"]))
    begin = (zeros, variables.get("batch_stats", {}))
    end: tuple
    values: tuple
    end, values = jax.lax.scan(add, begin, (jnp.arange(count), parts))
    return _averaged(*end, *values, count=count)


def _averaged(
    sums: dict, stats: dict, losses: Array, terms: dict, notes: dict, *, count: int
) -> LossAndGradients:
    """Averages the gradients' sums, the losses and their terms; sums the notes."""
    mean = jax.tree.map(jnp.mean, (losses, terms))
    return LossAndGradients(
        loss=mean[0],
        aux=LossAux(mean[1], stats, jax.tree.map(jnp.sum, notes)),
        gradients=jax.tree.map(lambda leaf: leaf / count, sums),
    )


def _split(leaf: Array, count: int) -> Array:
    """Reshapes [B, ..] to [count, B / count, ..]."""
    return leaf.reshape(-1, count, *leaf.shape[1:]).swapaxes(0, 1)
