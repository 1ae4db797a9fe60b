"""Gathers sharded parameters layer by layer, in the forward and the backward pass.

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", SC 2020, stage 3. Each array is gathered by itself and not kept for the
backward pass, so the compiler can gather it right before its use and free it after.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from vis_jax.structures import Batch, LossAux
from vis_jax.systems.system import Loss
from vis_jax.training.sharding import everywhere
from vis_jax.typing import Array, Float32, PRNGKeyArray

# Operations that copy a parameter: their results are computed again, too.
_COPIES = (
    "convert_element_type",
    "reshape",
    "transpose",
    "squeeze",
    "broadcast_in_dim",
)


def gathering(loss: Loss, mesh: Mesh, params: dict) -> Loss:
    """Returns the loss of sharded variables, each gathered where it is used.

    The value and gradients are those of `loss`; everything but the parameters is kept
    for the backward pass as without this.

    Args:
      loss: of variables that every device has.
      mesh: of all devices.
      params: parameters, or their shapes.
    """
    sizes = {leaf.size for leaf in jax.tree.leaves(params)}

    def gathered(
        variables: dict, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float32[Array, ""], LossAux]:
        return loss(everywhere(variables, mesh), batch, rng)

    return jax.checkpoint(gathered, policy=_policy(sizes))


def _policy(sizes: set[int]) -> Callable[..., bool]:
    """Returns which results of operations are kept for the backward pass."""

    def kept(primitive: Any, *inputs: Any, **unused: Any) -> bool:
        if primitive.name == "sharding_constraint":
            return False
        return not (primitive.name in _COPIES and inputs[0].size in sizes)

    return kept
