"""Lowers and compiles an update on a mesh of simulated devices, without running it."""

import math
from typing import Any, NamedTuple

import jax

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training.dry_run import residual_bytes
from vis_jax.training.flops import product_flops
from vis_jax.training.hlo import Collective, collectives
from vis_jax.training.initial import Plan, check_rules, make_plan
from vis_jax.training.run_config import LoopSettings
from vis_jax.training.sharding import batch_sharding, make_mesh


class Lowered(NamedTuple):
    """A lowered update; bytes and FLOPs per device."""

    stored: dict[str, int]  # bytes between updates, by use
    working: int  # estimate of the bytes that live only during an update
    flops: float  # FLOPs of products, assuming equal shares
    program: Any  # lowered by JAX


class CompiledUpdate(NamedTuple):
    """A compiled update, for one device."""

    arguments: int  # bytes of the state and the share of the batch
    working: int  # peak bytes of the rest: activations, gathered weights
    exchanged: list[Collective]


def lower_update(config: LoopSettings, system: System, shapes: Batch) -> Lowered:
    """Lowers an update of a run for all JAX devices.

    Args:
      config: config of the run; its mesh has all devices.
      system: system of the config.
      shapes: shapes of the global batch.

    Raises:
      ValueError: see `make_mesh`, `make_plan` and `check_rules`.
    """
    mesh = make_mesh(config.mesh)
    place = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
    )
    plan = make_plan(config, system, batch, mesh)
    check_rules(config, plan.like.variables)
    traced = plan.update.trace(plan.like, batch)  # type: ignore[attr-defined]
    flops = product_flops(traced.jaxpr) / mesh.size
    working = _working(config, system, plan, shapes, mesh.size)
    return Lowered(_stored(plan, batch), working, flops, traced.lower())


def compile_update(lowered: Lowered) -> CompiledUpdate:
    """Compiles the result of `lower_update`.

    Raises:
      ValueError: see `collectives`.
    """
    program = lowered.program.compile()
    memory = program.memory_analysis()
    return CompiledUpdate(
        arguments=memory.argument_size_in_bytes,
        working=memory.temp_size_in_bytes,
        exchanged=collectives(program.as_text()),
    )


def _stored(plan: Plan, batch: Batch) -> dict[str, int]:
    state = plan.like
    parts = {
        "parameters": state.variables,
        "optimiser": state.opt_state,
        "average": state.average,
        "batch": batch,
    }
    return {name: _bytes(part) for name, part in parts.items() if part is not None}


def _working(
    config: LoopSettings, system: System, plan: Plan, shapes: Batch, devices: int
) -> int:
    """Estimates the bytes that live only during an update.

    What autodiff stores for the clips of a device, gathered variables, and gradients.
    """
    variables = plan.like.variables
    residuals = residual_bytes(
        system,
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables),
        shapes,
        parts=config.train.accumulate * devices,
    )
    gathered = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(variables)
        if leaf.sharding.shard_shape(leaf.shape) != leaf.shape
    )
    return residuals + gathered + _bytes(variables["params"])


def _bytes(tree: Any) -> int:
    """Returns the bytes of a tree on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
