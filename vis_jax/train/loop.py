"""The order of events in a run."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from vis_jax.systems.system import System
from vis_jax.train.run import HostBatch, MakeBatches, open_run
from vis_jax.train.run_config import check_config
from vis_jax.train.state import TrainState
from vis_jax.train.writer import Writer, open_writer


def train(
    config: ConfigDict,
    system: System,
    make_batches: MakeBatches,
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
    every, last = config.train, config.num_steps
    writer = writer or open_writer(workdir, num_steps=last)
    with open_run(config, system, make_batches, workdir=workdir, writer=writer) as run:
        state, monitor = run.state, run.monitor
        for step in range(run.start + 1, last + 1):
            host, batch = next(run.batches)
            state, metrics = run.update(state, batch)
            monitor.add(step, metrics)
            leave = run.preempted(step)
            if due(step, every.log_every) or step == last:
                writer.progress(step, monitor.summary())
            if draw and due(step, every.image_every):
                writer.images(step, draw(state.variables, host, step))
            if due(step, every.checkpoint_every) or step == last or leave:
                run.checkpoints.save(state, monitor.latest())
            if leave:
                run.checkpoints.wait()
                writer.message(f"SIGTERM: saved step {step}; start again to go on")
                raise SystemExit(0)
            if evaluate and due(step, every.eval_every) and step < last:
                writer.scalars(step, evaluate(state.variables, step), group="eval")
        if evaluate:
            writer.scalars(last, evaluate(state.variables, last), group="eval")
    return state


def due(step: int, every: int) -> bool:
    """True at multiples of `every`; never if it is 0."""
    return every > 0 and step % every == 0
