"""Opens the resources of a run before the first update; closes them at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training.changes import check_changes
from vis_jax.training.checkpoint import Checkpoints
from vis_jax.training.initial import prepare
from vis_jax.training.lock import only_run
from vis_jax.training.monitor import Monitor
from vis_jax.training.phases import phase
from vis_jax.training.preemption import StopNow, StopRequest, how_to_go_on, notice
from vis_jax.training.run_config import LoopSettings, write_config
from vis_jax.training.sharding import make_mesh, to_global
from vis_jax.training.state import TrainState
from vis_jax.training.step import StepMetrics
from vis_jax.training.together import telling_others
from vis_jax.training.writer import Writer

HostBatch = dict[str, np.ndarray]
MakeBatches = Callable[[int], Iterator[HostBatch]]


class Run(NamedTuple):
    """A run ready to start or resume."""

    workdir: str
    start: int  # updates done
    state: TrainState
    update: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    batches: Iterator[tuple[HostBatch, Batch]]  # this process's share, global batch
    checkpoints: Checkpoints
    monitor: Monitor
    notice: StopRequest


@contextmanager
def open_run(
    config: LoopSettings,
    system: System,
    make_batches: MakeBatches,
    *,
    workdir: str,
    writer: Writer,
    accept_changes: bool = False,
    check: Callable[[dict], None] | None = None,
) -> Iterator[Run]:
    """Opens a run from its newest checkpoint; on exit waits for the last write.

    Only one run at a time may use the workdir.

    Raises:
      ValueError: see `vis_jax.training.loop.train`.
    """
    mesh = make_mesh(config.mesh)
    with ExitStack() as stack:
        stack.enter_context(closing(writer))
        if jax.process_index() == 0:
            stack.enter_context(only_run(workdir, say=writer.message))
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=config.train.keep))
        told = stack.enter_context(notice(checkpoints))
        stack.enter_context(telling_others())  # exits first
        start = checkpoints.latest_step() or 0
        check_resumed(
            config, workdir, start=start, accept=accept_changes, say=writer.message
        )
        again = how_to_go_on(workdir) if start else "start again to go on"
        with _leaving(told, writer, again):
            found = _begin(
                config, system, make_batches, start=start, checkpoints=checkpoints,
                mesh=mesh, writer=writer,
            )  # fmt: skip
        if check is not None:
            check(found.state.variables)
        write_config(config, workdir)
        clips = len(found.first["images"]) * jax.process_count()
        monitor = Monitor(clips_per_step=clips)
        batches = placed(found.first, found.rest, mesh)
        start, state, update = int(found.state.step), found.state, found.update
        yield Run(workdir, start, state, update, batches, checkpoints, monitor, told)


def check_resumed(
    config: LoopSettings,
    workdir: str,
    *,
    start: int,
    accept: bool,
    say: Callable[[str], None],
) -> None:
    """Raises ValueError unless a run can go on with these settings.

    Args:
      config: config of the resumed run.
      workdir: its folder.
      start: updates done; 0 = it does not resume.
      accept, say: see `check_changes`.
    """
    if start > config.num_steps:
        raise ValueError(
            f"num_steps: expected at least {start}, the updates that the run in"
            f" {workdir} has done, got {config.num_steps}"
        )
    if start:
        check_changes(config, workdir, accept=accept, say=say)


class _Begun(NamedTuple):
    """State, update and remaining batches."""

    state: TrainState
    update: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
    first: HostBatch
    rest: Iterator[HostBatch]


def _begin(
    config: LoopSettings,
    system: System,
    make_batches: MakeBatches,
    *,
    start: int,
    checkpoints: Checkpoints,
    mesh: Mesh,
    writer: Writer,
) -> _Begun:
    """Reads the first batch, and initialises or restores the state."""
    host = unending(make_batches(start))
    with phase(writer.phase, "first batch", "reading the clips"):
        first = next(host)
    source = f"step {start}" if start else config.init_from or "random"
    with phase(writer.phase, "parameters", source):
        state, update = prepare(
            config, system, to_global(first, mesh), checkpoints=checkpoints, mesh=mesh,
            say=writer.message,
        )  # fmt: skip
    if int(state.step) != start:  # the newest checkpoint was damaged
        host = unending(make_batches(int(state.step)))
        first = next(host)
    return _Begun(state, update, first, host)


@contextmanager
def _leaving(told: StopRequest, writer: Writer, again: str) -> Iterator[None]:
    """Exits at once on a signal, as there is nothing to save yet.

    Args:
      told: records the signal.
      writer: receives the last message.
      again: how to resume, appended to the message.
    """
    try:
        with told.at_once():
            yield
    except StopNow:
        writer.message(f"{told.name}: nothing to save yet; {again}")
        raise SystemExit(told.code) from None


def unending(batches: Iterator[HostBatch]) -> Iterator[HostBatch]:
    """Yields the batches; raises ValueError when they run out."""
    yield from batches
    raise ValueError("make_batches: expected an endless iterator, the batches ended")


def placed(
    first: HostBatch, rest: Iterator[HostBatch], mesh: Mesh
) -> Iterator[tuple[HostBatch, Batch]]:
    """Yields each host batch with its copy on the devices."""
    yield first, to_global(first, mesh)
    for batch in rest:
        yield batch, to_global(batch, mesh)
