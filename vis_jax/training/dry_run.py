"""Estimates memory and FLOPs of a run from shapes, without compiling or running it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_pipeline.schema import BATCH
from vis_jax.structures import Batch, Clip
from vis_jax.systems.system import System
from vis_jax.training import optimizer as optimizers
from vis_jax.training.accumulate import check_microbatches
from vis_jax.training.initial import check_rules
from vis_jax.training.run_config import LoopSettings
from vis_jax.training.state import start_average


class Estimate(NamedTuple):
    """Sizes of a model and of one update."""

    parameters: dict[str, int]  # trainable parameters, by part of the model
    constants: int  # values in other collections, such as batch-norm statistics
    flops: float | None  # for one clip in `System.step`; None: unknown to XLA
    memory: dict[str, int]  # bytes on one device, by use


def batch_shapes(**sizes: int) -> Batch:
    """Makes a batch of shapes.

    Args:
      **sizes: lengths of the axes of `data_pipeline.schema`: B, T, H, W and M.
    """
    fields: dict[str, Any] = {}
    for name, field in BATCH.items():
        shape = (sizes[a] if isinstance(a, str) else a for a in field.axes)
        fields[name] = jax.ShapeDtypeStruct(tuple(shape), field.dtype)
    return Batch(**fields)


def estimate(
    config: LoopSettings, system: System, batch: Batch, *, canvas: tuple[int, int]
) -> Estimate:
    """Estimates parameters, inference FLOPs and training memory, without a mesh.

    Args:
      config: config of the run, for the optimiser.
      system: system of `config`.
      batch: shapes of the clips of one device.
      canvas: height and width in pixels of a frame at test time.

    Raises:
      ValueError: see `vis_jax.training.initial.check_rules`.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = dict(jax.eval_shape(system.init, key, batch))
    params = variables["params"]
    optimizer = optimizers.build(
        config.optimizer, num_steps=config.num_steps, params=params
    )
    check_rules(config, variables)
    state = jax.eval_shape(optimizer.transform.init, params)
    average = jax.eval_shape(start_average, variables) if config.train.ema else {}
    return Estimate(
        parameters={name: _count(part) for name, part in params.items()},
        constants=_count(variables) - _count(params),
        flops=_flops(system, variables, canvas),
        memory={
            "parameters": _bytes(variables),
            "gradients": _bytes(params),
            "optimiser": _bytes(state),
            **({"average": _bytes(average)} if average else {}),
            "batch": _bytes(batch),
            "kept for the backward pass": residual_bytes(
                system, variables, batch, parts=config.train.accumulate
            ),
        },
    )


def residual_bytes(system: System, variables: dict, batch: Batch, *, parts: int) -> int:
    """Returns the bytes that autodiff stores between forward and backward pass.

    Args:
      system: system to train.
      variables: shapes of its variables.
      batch: shapes of clips.
      parts: number of parts of the batch, one of which is in memory.

    Raises:
      ValueError: `parts` does not divide the clips.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    part = _microbatch(batch, parts)
    return _bytes(
        jax.eval_shape(_saved(system), variables["params"], variables, part, key)
    )


def _microbatch(batch: Batch, count: int) -> Batch:
    """Returns the shapes of one of `count` microbatches.

    Raises:
      ValueError: `count` does not divide the clips.
    """
    clips = batch.images.shape[0]
    check_microbatches(count, clips, devices=1)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((clips // count, *x.shape[1:]), x.dtype), batch
    )


def _flops(system: System, variables: dict, canvas: tuple[int, int]) -> float | None:
    """Returns the FLOPs of a one-frame video, by XLA's count before compilation."""
    shapes = (((1, *canvas, 3), jnp.uint8), ((1,), jnp.bool_), ((2,), jnp.int32))
    arrays: list[Any] = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    clip = Clip(*arrays)
    start = jax.eval_shape(system.start, clip)
    # Some backends give no count. XLA counts loop bodies once; one frame has no loop in
    # the form for accelerators.
    traced = jax.jit(system.step).trace(variables, start, clip)
    lowered = traced.lower(lowering_platforms=("tpu",))
    return (lowered.cost_analysis() or {}).get("flops")


def _saved(system: System) -> Callable[..., list]:
    """Returns a function that gives the residuals stored for the backward pass."""

    def saved(params: dict, variables: dict, batch: Batch, key: jax.Array) -> list:
        def loss(params: dict) -> jax.Array:
            return system.loss(variables | {"params": params}, batch, key)[0]

        _, pullback = jax.vjp(loss, params)
        given = {id(leaf) for leaf in jax.tree.leaves((params, variables, batch))}
        stored = {id(leaf): leaf for leaf in jax.tree.leaves(pullback)}
        return [leaf for name, leaf in stored.items() if name not in given]

    return saved


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
