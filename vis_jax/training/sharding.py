"""Where arrays live: one mesh over all devices of all processes."""

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vis_jax.structures import Batch

Tree = TypeVar("Tree")


def make_mesh() -> Mesh:
    """All devices along one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def param_sharding(tree: Tree, mesh: Mesh) -> Tree:
    """The sharding of each leaf of a state: a copy on every device.

    To shard parameters, return other specs here; nothing else needs to change.
    """
    return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Clips are divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_global(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """One batch over all devices from the clips that this process has read.

    Args:
      batch: arrays by name, as `data_pipeline.schema.BATCH` describes them; the clips
        of this process only, equally many in every process.

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
