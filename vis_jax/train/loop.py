"""The order of events in a run."""

from collections.abc import Callable, Iterator
from contextlib import closing

import jax
import numpy as np
from ml_collections import ConfigDict

from vis_jax.systems.system import System
from vis_jax.train.checkpoint import Checkpoints
from vis_jax.train.initial import prepare
from vis_jax.train.monitor import Monitor
from vis_jax.train.preemption import notice
from vis_jax.train.run_config import check_config, write_config
from vis_jax.train.sharding import make_mesh, to_global
from vis_jax.train.state import TrainState
from vis_jax.train.writer import Writer, open_writer

HostBatch = dict[str, np.ndarray]


def train(
    config: ConfigDict,
    system: System,
    make_batches: Callable[[int], Iterator[HostBatch]],
    workdir: str,
    *,
    evaluate: Callable[[dict, int], dict[str, float]] | None = None,
    draw: Callable[[dict, HostBatch, int], dict[str, np.ndarray]] | None = None,
    writer: Writer | None = None,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start.

    Stopped and started again, it ends in the same state as if it had not been. After a
    SIGTERM it saves and exits with code 0.

    Args:
      make_batches: (batches to leave out) -> this process's share of each batch.
      workdir: receives config.json, checkpoints and TensorBoard files.
      evaluate: (variables, step) -> scalars; every `train.eval_every` steps and last.
      draw: (variables, batch, step) -> images; every `train.image_every` steps.
      writer: receives scalars and images; None: TensorBoard and a line of progress.

    Raises:
      ValueError: on a wrong config, another model in `workdir`, too few batches, a loss
        that is not finite (NonFiniteLossError), an unwritable disk (CheckpointError).
      SystemExit: with code 0, after a SIGTERM.
    """
    check_config(config)
    every, last, mesh = config.train, config.num_steps, make_mesh()
    with (
        Checkpoints(workdir, keep=every.keep) as checkpoints,
        closing(writer or open_writer(workdir, num_steps=last)) as writer,
        notice(checkpoints) as preempted,
    ):
        start = checkpoints.latest_step() or 0
        if start > last:
            raise ValueError(f"num_steps: {last}, but {workdir} is at step {start}")
        batches = unending(make_batches(start))
        batch = next(batches)
        state, update = prepare(
            config, system, to_global(batch, mesh), checkpoints=checkpoints, mesh=mesh
        )
        write_config(config, workdir)
        clips = len(batch["images"]) * jax.process_count()
        monitor = Monitor(clips_per_step=clips)
        for step in range(start + 1, last + 1):
            state, metrics = update(state, to_global(batch, mesh))
            monitor.add(step, metrics)
            leave = preempted(step)
            if due(step, every.log_every) or step == last:
                writer.progress(step, monitor.summary())
            if draw and due(step, every.image_every):
                writer.images(step, draw(state.variables, batch, step))
            if due(step, every.checkpoint_every) or step == last or leave:
                checkpoints.save(state, monitor.latest())
            if leave:
                checkpoints.wait()
                writer.message(f"SIGTERM: saved step {step}; start again to go on")
                raise SystemExit(0)
            if evaluate and due(step, every.eval_every) and step < last:
                writer.scalars(step, evaluate(state.variables, step), group="eval")
            if step < last:
                batch = next(batches)
        if evaluate:
            writer.scalars(last, evaluate(state.variables, last), group="eval")
    return state


def due(step: int, every: int) -> bool:
    """True at multiples of `every`; never if it is 0."""
    return every > 0 and step % every == 0


def unending(batches: Iterator[HostBatch]) -> Iterator[HostBatch]:
    """The batches; asking for one more than there are is a ValueError."""
    yield from batches
    raise ValueError("make_batches: expected an endless iterator, the batches ended")
