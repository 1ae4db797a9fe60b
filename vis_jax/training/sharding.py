"""Sharding of arrays over one mesh of all devices of all processes.

The batch is sharded over all devices. Between updates, the state is sharded along the
axis "fsdp" (Zhao et al., "PyTorch FSDP", VLDB 2023; Rajbhandari et al., "ZeRO", SC
2020, stage 3) and replicated along "data".

Unlike stage 3, an update gathers all parameters at once rather than layer by layer, so
each device holds a full copy of them during an update. For sharded gradients, XLA on
CPUs shows all-reduces.
"""

import re
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vis_jax.params import check_regexes
from vis_jax.settings import Count, Natural, Range, section
from vis_jax.structures import Batch

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")


@section
class MeshSettings:
    """`mesh`: how the devices of all processes share the batch and the state."""

    # Number of groups of devices, each with a full copy of the state; -1 = number of
    # devices / fsdp.
    data: Annotated[int, Range(least=-1)] = -1
    # Devices per group, over which parameters, gradients, averages and the optimiser
    # state are sharded; 1 = every device has all of them.
    fsdp: Count = 1
    # Minimum size of a sharded array, in numbers; smaller ones are replicated.
    least: Natural = 16_384
    # (regex for the full path of a parameter, axis to shard; None = replicated). The
    # first match overrides `least` and the default, the longest axis.
    rules: tuple[tuple[str, int | None], ...] = ()

    def __post_init__(self) -> None:
        if self.data == 0:
            raise ValueError("data: expected -1 or at least 1, got 0")
        check_regexes("rules", [pattern for pattern, _ in self.rules])


NOT_DIVIDED = MeshSettings()  # the state is replicated on every device


def mesh_shape(settings: MeshSettings, devices: int) -> tuple[int, int]:
    """Returns the lengths of the axes "data" and "fsdp".

    Args:
      settings: the section `mesh`.
      devices: number of devices of all processes.

    Raises:
      ValueError: their product cannot equal the number of devices.
    """
    data, fsdp = settings.data, settings.fsdp
    if devices % fsdp:
        raise ValueError(
            f"mesh.fsdp: expected a divisor of the number of devices, {devices}, got"
            f" {fsdp}"
        )
    if data not in (-1, devices // fsdp):
        raise ValueError(
            f"mesh.data: expected -1 or {devices // fsdp}, as mesh.data x mesh.fsdp"
            f" ({fsdp}) is the number of devices, {devices}, got {data}"
        )
    return devices // fsdp, fsdp


def make_mesh(settings: MeshSettings = NOT_DIVIDED) -> Mesh:
    """Makes the mesh of all devices, with axes "data" and "fsdp".

    Raises:
      ValueError: see `mesh_shape`.
    """
    shape = mesh_shape(settings, jax.device_count())
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def param_sharding(
    tree: Tree, mesh: Mesh | AbstractMesh, settings: MeshSettings = NOT_DIVIDED
) -> Tree:
    """Returns the sharding of each leaf of a state, or part of one, between updates.

    The longest axis divisible by the length of "fsdp" is sharded, the last of equally
    long ones; a leaf without one is replicated.

    Raises:
      ValueError: a rule names an axis that cannot be divided.
    """
    shards = mesh.shape.get("fsdp", 1)
    rules = [(re.compile(pattern), axis) for pattern, axis in settings.rules]

    def sharding(path: tuple, leaf: Any) -> NamedSharding:
        if shards == 1:
            return NamedSharding(mesh, PartitionSpec())
        axis = _axis(_name(path), leaf, shards, rules, settings.least)
        before = () if axis is None else ((None,) * axis + ("fsdp",))
        return NamedSharding(mesh, PartitionSpec(*before))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: clips are divided among all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def everywhere(tree: Tree, mesh: Mesh) -> Tree:
    """Replicates each leaf on every device; for use inside jit."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def whole(tree: Tree) -> Tree:
    """Gathers every leaf of a tree into this process; all processes must call it.

    Replicated leaves stay on the devices, others are copied to host memory.
    """
    return jax.tree.map(_whole, tree)


def to_global(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """Makes the global batch from the clips that each process has read.

    Args:
      batch: arrays by name, as in `data_pipeline.schema.BATCH`; the clips of this
        process only, the same number in every process.

    Raises:
      ValueError: if the clips cannot be divided among this process's devices.
    """
    clips, devices = len(batch["images"]), jax.local_device_count()
    if clips % devices:
        raise ValueError(
            f"batch: expected a multiple of {devices} clips, one share for each device"
            f" of this process, got {clips}"
        )
    sharding = batch_sharding(mesh)
    return Batch(
        **{
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in batch.items()
        }
    )


def _axis(
    name: str,
    leaf: Any,
    shards: int,
    rules: list[tuple[re.Pattern, int | None]],
    least: int,
) -> int | None:
    """Returns the axis of an array to shard, or None."""
    for pattern, axis in rules:
        if pattern.fullmatch(name) and leaf.ndim:  # skips the optimiser's counters
            if axis is not None and (
                not 0 <= axis < leaf.ndim or leaf.shape[axis] % shards
            ):
                raise ValueError(
                    f"mesh.rules: expected an axis of {name} {list(leaf.shape)} that"
                    f" mesh.fsdp {shards} divides, got {axis} of {pattern.pattern!r}"
                )
            return axis
    fit = [axis for axis, length in enumerate(leaf.shape) if length % shards == 0]
    if leaf.size < least or not fit:
        return None
    return max(fit, key=lambda axis: (leaf.shape[axis], axis))


def rule_paths(tree: Tree) -> list[str]:
    """Returns the paths that `mesh.rules` match, such as head/kernel."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _name(path: tuple) -> str:
    """Returns the parameter path of a leaf, such as head/kernel."""
    names = [str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey)]
    return "/".join(names[1:] if names[:1] == ["params"] else names)


def _whole(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
        return leaf
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)
