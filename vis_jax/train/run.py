"""Everything that is ready before the first update, and closed after the last one."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.train.checkpoint import Checkpoints
from vis_jax.train.initial import prepare
from vis_jax.train.monitor import Monitor
from vis_jax.train.preemption import notice
from vis_jax.train.run_config import RunSettings, write_config
from vis_jax.train.sharding import make_mesh, to_global
from vis_jax.train.state import TrainState
from vis_jax.train.step import StepMetrics
from vis_jax.train.writer import Writer

HostBatch = dict[str, np.ndarray]
MakeBatches = Callable[[int], Iterator[HostBatch]]


class Run(NamedTuple):
    """A run that is about to start or to go on."""

    start: int  # updates done
    state: TrainState
    update: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    batches: Iterator[tuple[HostBatch, Batch]]  # this process's share, and all of it
    checkpoints: Checkpoints
    monitor: Monitor
    preempted: Callable[[int], bool]


@contextmanager
def open_run(
    config: RunSettings,
    system: System,
    make_batches: MakeBatches,
    *,
    workdir: str,
    writer: Writer,
) -> Iterator[Run]:
    """Reads the newest checkpoint; at the end waits until the last one is written.

    Raises:
      ValueError: see `vis_jax.train.loop.train`.
    """
    mesh = make_mesh()
    with (
        Checkpoints(workdir, keep=config.train.keep) as checkpoints,
        closing(writer),
        notice(checkpoints) as preempted,
    ):
        start = checkpoints.latest_step() or 0
        if start > config.num_steps:
            raise ValueError(
                f"num_steps: {config.num_steps}, but {workdir} is at step {start}"
            )
        host = unending(make_batches(start))
        first = next(host)
        state, update = prepare(
            config, system, to_global(first, mesh), checkpoints=checkpoints, mesh=mesh
        )
        write_config(config, workdir)
        monitor = Monitor(clips_per_step=len(first["images"]) * jax.process_count())
        batches = placed(first, host, mesh)
        yield Run(start, state, update, batches, checkpoints, monitor, preempted)


def unending(batches: Iterator[HostBatch]) -> Iterator[HostBatch]:
    """The batches; asking for one more than there are is a ValueError."""
    yield from batches
    raise ValueError("make_batches: expected an endless iterator, the batches ended")


def placed(
    first: HostBatch, rest: Iterator[HostBatch], mesh: Mesh
) -> Iterator[tuple[HostBatch, Batch]]:
    """Each batch beside its copy on the devices."""
    yield first, to_global(first, mesh)
    for batch in rest:
        yield batch, to_global(batch, mesh)
